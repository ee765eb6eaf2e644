-- backup-mx: put here by backup-mx-kit, taken away by "backup-mx-kit undo".
--
-- Mail that a backup MX kept while this server was away is handed over ("drained") by the relay.
-- It is scored as if it had come straight, but it is never refused: its sender got a 250 long ago.
-- What would have been refused is tagged instead ("add header"), for Sieve to file it.
-- The symbol BACKUP_MX_DRAIN, of no weight, marks such mail.

local lua_maps = require "lua_maps"
local rspamd_ip = require "rspamd_ip"

local N = 'backup_mx'
-- The address that a relay connects from, and its public one.
local RELAYS = {
  ['10.0.20.2'] = '203.0.113.20', -- backup
  ['fd00:20::3'] = '2001:db8::20', -- far
}
-- The domains whose mailboxes are here.
local DOMAINS = {
  ['example.com'] = true,
}
local options = rspamd_config:get_all_opt(N) or {}
local addresses = {}
for address in pairs(RELAYS) do
  addresses[#addresses + 1] = address
end
local relays = lua_maps.map_add_from_ucl(addresses, 'radix', 'backup-mx relays')
-- They run whatever came before (a result set early ends other rules), and on any message.
local ALWAYS = 'ignore_passthrough,empty,nostat'
-- Over every other result: rspamd's own for GTUBE has 3, its highest.
local OVERRIDE = 4

-- Returns the address of the relay that handed a message over, nil for any other message.
local function drained(task)
  local symbol = task:get_symbol('BACKUP_MX_DRAIN')
  return symbol and symbol[1].options[1]
end

local function tag(task, why)
  task:set_pre_result {
    action = 'add header', message = why, module = N, priority = OVERRIDE, flags = 'process_all',
  }
end

-- A connfilter is what runs before the message is parsed, and before external_relay (a prefilter)
-- puts the sender's address where the relay's was.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_DRAIN',
  description = 'Handed over by a backup MX, and judged by who sent it there',
  type = 'connfilter', group = N, score = 0.0, priority = 10, flags = ALWAYS,
  callback = function(task)
    local ip = task:get_from_ip()
    if ip and ip:is_valid() and relays:get_key(ip) then
      task:insert_result('BACKUP_MX_DRAIN', 0.0, tostring(ip))
    end
  end,
}

-- layer: external-relay
-- Where straight mail has Received fields, rspamd puts the connection on top of them as one more,
-- marked artificial. From a relay that is the relay's connection, and the relay's own field is the
-- sender's. Let every rule see that one as the connection: or the sender would be looked up in block
-- lists twice, and have come by one hop more (RCVD_COUNT_ZERO, VIOLATED_DIRECT_SPF, ONCE_RECEIVED).
local CONNECTION = {
  'real_ip', 'from_ip', 'real_hostname', 'from_hostname', 'by_hostname', 'timestamp',
}
local function from_hop(received, hop, ssl)
  local seen = {}
  if hop < #received then
    seen[1] = { proto = 'unknown', flags = { artificial = true, ssl = ssl } }
    for _, key in ipairs(CONNECTION) do seen[1][key] = received[hop][key] end
  end
  for position = hop + 1, #received do seen[#seen + 1] = received[position] end
  return seen
end

local original
local function hide_relay(task, hop, ssl)
  if not original then
    local class = getmetatable(task)
    original = class.get_received_headers
    class.get_received_headers = function(other, ...)
      local received, first = original(other, ...), other:cache_get('backup_mx_hop')
      return first and from_hop(received, first, other:cache_get('backup_mx_ssl')) or received
    end
  end
  task:cache_set('backup_mx_hop', hop)
  task:cache_set('backup_mx_ssl', ssl)
end

-- Did a hop use TLS? rspamd does not know what Postfix calls it with SMTPUTF8 (RFC 6531, 4.3).
local function was_encrypted(task, received, hop)
  local added = received[1].flags.artificial and 1 or 0
  local field = (task:get_header_full('Received') or {})[hop - added]
  return received[hop].flags.ssl or field and field.value:find(' with UTF8SMTPSA? id ') ~= nil
end

-- external_relay takes the name that the sender gave in HELO for its host name, which anybody can
-- choose; straight mail has the verified one. The relay's Received field has both (RFC 5321 4.4).
rspamd_config:register_symbol {
  name = 'BACKUP_MX_HOP', type = 'prefilter', group = N, priority = 11, flags = ALWAYS,
  callback = function(task)
    local origin = task:get_from_ip()
    if not drained(task) or not origin then return end
    local hops = task:get_received_headers()
    for hop, received in ipairs(hops) do
      if received.real_ip and received.real_ip == origin and not received.flags.artificial then
        local name = received.real_hostname
        local known = name and name ~= 'unknown' and not name:find('[', 1, true)
        task:set_hostname(known and name or ('[' .. tostring(origin) .. ']'))
        return hide_relay(task, hop, was_encrypted(task, hops, hop))
      end
    end
  end,
}
-- end of layer

-- layer: local-addrs
-- A relay in a tunnel has an address that rspamd's local_addrs covers; mail from there would not be
-- checked, get no header and be DKIM-signed as our own. It concerns what has no other origin than
-- the relay: it counts as sent from the relay's public address.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_LOCAL', type = 'prefilter', group = N, priority = 11, flags = ALWAYS,
  callback = function(task)
    local ip = task:get_from_ip()
    if drained(task) and ip and ip:is_local() then
      task:set_from_ip(rspamd_ip.from_string(RELAYS[drained(task)]))
    end
  end,
}
-- end of layer

-- layer: greylist
-- To put a relay off proves nothing about the sender, who is gone. greylist.lua sees the sender's
-- address, so the relay's in its whitelisted_ip would never match: its rules are left out.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_GREYLIST', type = 'prefilter', group = N, priority = 10, flags = ALWAYS,
  callback = function(task)
    if drained(task) then
      task:disable_symbol('GREYLIST_CHECK')
      task:disable_symbol('GREYLIST_SAVE')
      task:disable_action('greylist') -- as greylist.lua does for whom it spares
    end
  end,
}
-- end of layer

-- layer: ratelimit
-- A drain hands over in minutes what came in over days.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_RATELIMIT', type = 'prefilter', group = N, priority = 10, flags = ALWAYS,
  callback = function(task)
    if drained(task) then
      task:disable_symbol('RATELIMIT_CHECK')
      task:cache_set('backup_mx_unlimited', true)
    end
  end,
}
-- end of layer

-- Is the sender in a domain of ours, or below one? where: 'smtp' (envelope) or 'mime' (From: field).
local function own_sender(task, where)
  local from = (task:get_from(where) or {})[1]
  local domain = from and from.domain and from.domain:lower() or ''
  while domain ~= '' do
    if DOMAINS[domain] then return true end
    domain = domain:match('^[^.]*%.(.*)$') or ''
  end
  return false
end

rspamd_config:register_symbol {
  name = 'BACKUP_MX_REFUSED',
  description = 'Straight from its sender this would have been refused before rspamd saw it',
  type = 'postfilter', group = N, score = 0.0, priority = 10, flags = ALWAYS,
  callback = function(task)
    if not drained(task) then return end
    if options.refuses_spf_failures and task:has_symbol('R_SPF_FAIL') then
      task:insert_result('BACKUP_MX_REFUSED', 1.0, 'spf')
    end
    if options.refuses_spf_softfails and task:has_symbol('R_SPF_SOFTFAIL') then
      task:insert_result('BACKUP_MX_REFUSED', 1.0, 'spf softfail')
    end
    -- Who may use our name does not forge it. SPF speaks of the envelope, DMARC of the From: field:
    -- with a From: of his own anybody passes DMARC, whatever name of ours his envelope has.
    local allowed = task:has_symbol('R_SPF_ALLOW')
        or task:has_symbol('DMARC_POLICY_ALLOW') and own_sender(task, 'mime')
    if options.refuses_own_senders and own_sender(task, 'smtp') and not allowed then
      task:insert_result('BACKUP_MX_REFUSED', 1.0, 'own domain')
    end
  end,
}

-- layer: ceiling
local TAGS = { ['add header'] = true, ['rewrite subject'] = true, ['quarantine'] = true }
local DELIVERS = {
  ['no action'] = true, ['greylist'] = true, -- by score: no more than a greylister's threshold
  ['add header'] = true, ['rewrite subject'] = true, ['quarantine'] = true,
}
-- GTUBE (https://spamassassin.apache.org/gtube/) makes rspamd's parser refuse a message and skip all
-- rules, whatever the configuration. Only what was set before, with more weight, stands above.
local GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'
rspamd_config:register_symbol {
  name = 'BACKUP_MX_GTUBE', type = 'connfilter', group = N, priority = 9, flags = ALWAYS,
  callback = function(task)
    if drained(task) and task:get_content():find(GTUBE) then
      tag(task, 'GTUBE')
    end
  end,
}
-- After every other postfilter (they run from low to high): what is to become of the message.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_CEILING', type = 'postfilter', group = N, priority = 11, flags = ALWAYS,
  callback = function(task)
    if not drained(task) then return end
    local action = task:get_metric_action()
    if not DELIVERS[action] then
      task:cache_set('backup_mx_tag', 'instead of ' .. action)
    elseif not TAGS[action] and task:has_symbol('BACKUP_MX_REFUSED') then
      task:cache_set('backup_mx_tag', 'straight it would have been refused')
    end
  end,
}
-- Done by an idempotent rule, for these run after Bayes has learnt: it learns from what the message
-- is, not from what is done with it. Before the rule that writes the header, which has 0.
rspamd_config:register_symbol {
  name = 'BACKUP_MX_TAG', type = 'idempotent', group = N, priority = -1, flags = ALWAYS,
  callback = function(task)
    local why = task:cache_get('backup_mx_tag')
    if why then tag(task, why) end
  end,
}
-- end of layer
