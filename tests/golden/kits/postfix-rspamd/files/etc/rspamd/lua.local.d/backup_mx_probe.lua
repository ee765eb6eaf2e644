-- backup-mx: put here by backup-mx-kit, taken away by "backup-mx-kit undo".
--
-- Answers `backup-mx primary check`, which asks from a relay what rspamd makes of its mail.
--
-- A probe is a message that comes from a relay's own address with this header field above every
-- Received field. A relay puts its own Received field on top of all it carries, so nobody can send
-- a probe through it. A probe is never delivered: it is answered with a 4xx that tells what rspamd
-- saw and would have done.
local HEADER = 'X-Backup-MX-Probe'
-- They run whatever came before (a result set early ends other rules), and on any message.
local ALWAYS = 'ignore_passthrough,empty,nostat'

-- Returns an action as one word.
local function word(action)
  return (action:gsub(' ', '_'))
end

-- Returns the relay that handed a probe over, nil for any other message.
local function prober(task)
  local drained = task:get_symbol('BACKUP_MX_DRAIN') -- backup_mx.lua sets it
  local probe = task:get_header_full(HEADER)
  local received = task:get_header_full('Received')
  if drained and probe and received and probe[1].order < received[1].order then
    return drained[1].options[1]
  end
end

-- The score that the probe asks for, to see what becomes of mail that deserves it.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_PROBE', type = 'normal', group = 'backup_mx', score = 1.0, flags = 'nostat',
  callback = function(task)
    local score = tonumber(task:get_header(HEADER) or '')
    if score and prober(task) then
      task:insert_result('BACKUP_MX_PROBE', score)
    end
  end,
}

-- After every other postfilter (they run from low to high; the ceiling decides at 11): what rspamd
-- would do without the ceiling, and with it.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_ANSWER', type = 'postfilter', group = 'backup_mx', priority = 12, flags = ALWAYS,
  callback = function(task)
    local relay = prober(task)
    if not relay then return end
    local origin, uncapped = task:get_from_ip(), task:get_metric_action()
    task:set_pre_result {
      action = 'soft reject',
      message = string.format(
        'backup-mx probe: relay=%s local=%s ip=%s limited=%s uncapped=%s action=%s',
        relay, origin:is_local() and 'yes' or 'no', tostring(origin),
        -- ratelimit.lua spares postmaster by default, to whom probes go: to wait for its answer would
        -- prove nothing. backup_mx.lua tells that it has left it out.
        task:cache_get('backup_mx_unlimited') and 'no' or 'yes', word(uncapped),
        word(task:cache_get('backup_mx_tag') and 'add header' or uncapped)),
      module = 'backup_mx_probe',
      priority = 5, -- above the ceiling's
    }
    -- lua_bayes_learn.lua then has nothing to learn as spam: it knows all of it.
    task:get_mempool():set_variable('bayes_prob', 1.0)
  end,
}
