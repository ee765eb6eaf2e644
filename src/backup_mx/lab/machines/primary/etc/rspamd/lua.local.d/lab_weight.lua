-- For the drills: mail that says how bad it is. The field X-Lab-Weight, a number, is added to its score.
rspamd_config:register_symbol {
  name = 'LAB_WEIGHT',
  score = 1.0,
  group = 'lab',
  description = 'a drill asked for this score',
  callback = function(task)
    local weight = tonumber(task:get_header('X-Lab-Weight') or '')
    if weight then
      return true, weight
    end
  end,
}
