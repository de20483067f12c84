"""Histories as Lua: the atomic steps of a store on the Redis wire.

Keys, all in the slot of the channel::

    CHANNEL:stream      stream   MS-OFFSET -> p: payload, with its position
    CHANNEL:position    hash     epoch, offset and ms of the newest message; the server that
                                 counted it; the last position of each earlier epoch
    CHANNEL:key:KEY     string   position of the message that was published with an idempotency key

The stream's IDs carry the offset, but a message is found by counting back from the newest: between
two offsets lie as many entries as they differ, or the history does not reach back.  ``ms`` is the
server's clock, kept from going backwards, so that IDs always grow and ``MINID`` is an age.

A server that finds the hash written by another one has a copy, of which the last writes may be
missing: a replica that took over, or one that restarted from its disk.  It counts on in a new epoch
and notes up to where the old one holds, so that a position which was given away twice is told from
its namesake.  *Server* is the start of the replication ID, which changes whenever a server starts
or becomes a primary, and now and then without need, which costs a question.  Epochs before the last
eight are forgotten.

Needs a server that replicates effects (Redis 5, any Valkey), for the scripts read the clock before
they write.
"""

_PRELUDE = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- A server that starts or becomes a primary has a new one.
local function server()
  local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  return string.sub(id or '', 1, 16)
end
local function whole(number) return string.format('%.0f', number) end
"""

PUBLISH_KEPT = (
    _PRELUDE
    + """
local stream, place, seen = KEYS[1], KEYS[2], KEYS[3]
local channel, payload, command = ARGV[1], ARGV[2], ARGV[3]
local size, age, idle, fresh = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local remember = tonumber(ARGV[8])
if remember > 0 then
  local before = redis.call('GET', seen)
  if before then
    -- Written, so that whoever waits for replicas waits for what the first publish wrote.
    redis.call('PEXPIRE', seen, remember)
    return {0, before, 1}
  end
end
local found = redis.call('HMGET', place, 'epoch', 'offset', 'ms', 'server', 'earlier')
local epoch, offset = found[1] or fresh, tonumber(found[2] or 0)
local here, earlier = server(), found[5] or ''
if not found[1] then
  redis.call('DEL', stream)
elseif found[4] and found[4] ~= here then
  -- Whoever counted may have given the next offsets away, and the copy here never got to know.
  earlier = string.match(earlier, '^' .. string.rep('%S+ ', 7)) or earlier
  earlier = epoch .. '-' .. whole(offset) .. ' ' .. earlier
  epoch = fresh
end
offset = offset + 1
local ms = math.max(now(), tonumber(found[3] or 0))
local position = epoch .. '-' .. whole(offset)
local message = 'p' .. position .. ':' .. payload
local entry = whole(ms) .. '-' .. whole(offset)
redis.call('XADD', stream, 'MAXLEN', size, entry, 'p', message)
redis.call('XTRIM', stream, 'MINID', whole(math.max(ms - age, 0)))
redis.call('PEXPIRE', stream, age)
redis.call('HSET', place, 'epoch', epoch, 'offset', whole(offset), 'ms', whole(ms),
  'server', here, 'earlier', earlier)
redis.call('PEXPIRE', place, idle)
if remember > 0 then redis.call('SET', seen, position, 'PX', remember) end
return {redis.call(command, channel, message), position, 0}
"""
)
"""KEYS stream, position, and that of the idempotency key if there is one; ARGV channel, payload,
PUBLISH or SPUBLISH, size, age and idle time in ms, an epoch in case one begins, ms to remember the
key (0: there is none)
-> receivers, position, 1 if it was published before."""

RECOVER = (
    _PRELUDE
    + """
local stream, place = KEYS[1], KEYS[2]
local epoch, since = ARGV[1], tonumber(ARGV[2])
local size, age, idle, fresh = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local found = redis.call('HMGET', place, 'epoch', 'offset', 'earlier')
if not found[1] then
  redis.call('DEL', stream)
  redis.call('HSET', place, 'epoch', fresh, 'offset', '0', 'ms', whole(now()), 'server', server())
  redis.call('PEXPIRE', place, idle)
  return {fresh .. '-0', '', {}}
end
local newest, earlier = tonumber(found[2]), found[3] or ''
local position = found[1] .. '-' .. whole(newest)
local last
for each, offset in string.gmatch(position .. ' ' .. earlier, '(%w+)-(%d+)') do
  if each == epoch then last = tonumber(offset) end
end
if not last or since > last or since == newest then return {position, earlier, {}} end
local oldest = whole(math.max(now() - age, 0))
local kept = redis.call('XREVRANGE', stream, '+', oldest, 'COUNT', math.min(newest - since, size))
local payloads = {}
for i = #kept, 1, -1 do payloads[#payloads + 1] = kept[i][2][2] end
return {position, earlier, payloads}
"""
)
"""KEYS stream, position; ARGV epoch and offset to recover from (an empty epoch: only the newest
position), size, age and idle time in ms, an epoch in case one begins
-> the newest position, the last ones of the epochs before it, and the payloads after the one asked
about which are kept, in order."""
