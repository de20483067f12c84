"""Histories as Lua: the atomic steps of a store on the Redis wire.

Keys, all in the slot of the channel::

    CHANNEL:stream      stream   MS-OFFSET -> p: payload, with its position
    CHANNEL:position    hash     epoch, offset and ms of the newest message
    CHANNEL:key:KEY     string   position of the message that was published with an idempotency key

The stream's IDs carry the offset, but a message is found by counting back from the newest: between
two offsets lie as many entries as they differ, or the history does not reach back.  ``ms`` is the
server's clock, kept from going backwards, so that IDs always grow and ``MINID`` is an age.

Needs a server that replicates effects (Redis 5, any Valkey), for the scripts read the clock before
they write.
"""

_NOW = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

PUBLISH_KEPT = (
    _NOW
    + """
local stream, place, seen = KEYS[1], KEYS[2], KEYS[3]
local channel, payload, command = ARGV[1], ARGV[2], ARGV[3]
local size, age, idle, fresh = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local remember = tonumber(ARGV[8])
if remember > 0 then
  local before = redis.call('GET', seen)
  if before then return {0, before, 1} end
end
local found = redis.call('HMGET', place, 'epoch', 'offset', 'ms')
if not found[1] then redis.call('DEL', stream) end
local epoch, offset = found[1] or fresh, tonumber(found[2] or 0) + 1
local ms = math.max(now(), tonumber(found[3] or 0))
local position = epoch .. '-' .. string.format('%.0f', offset)
local whole = 'p' .. position .. ':' .. payload
local stamp = string.format('%.0f', ms)
local entry = stamp .. '-' .. string.format('%.0f', offset)
redis.call('XADD', stream, 'MAXLEN', size, entry, 'p', whole)
redis.call('XTRIM', stream, 'MINID', string.format('%.0f', math.max(ms - age, 0)))
redis.call('PEXPIRE', stream, age)
redis.call('HSET', place, 'epoch', epoch, 'offset', string.format('%.0f', offset), 'ms', stamp)
redis.call('PEXPIRE', place, idle)
if remember > 0 then redis.call('SET', seen, position, 'PX', remember) end
return {redis.call(command, channel, whole), position, 0}
"""
)
"""KEYS stream, position, key; ARGV channel, payload, PUBLISH or SPUBLISH, size, age and idle time
in ms, an epoch in case one begins, ms to remember the key (0: there is none)
-> receivers, position, 1 if it was published before."""

RECOVER = (
    _NOW
    + """
local stream, place = KEYS[1], KEYS[2]
local epoch, since = ARGV[1], tonumber(ARGV[2])
local size, age, idle, fresh = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local found = redis.call('HMGET', place, 'epoch', 'offset')
if not found[1] then
  redis.call('DEL', stream)
  redis.call('HSET', place, 'epoch', fresh, 'offset', '0', 'ms', string.format('%.0f', now()))
  redis.call('PEXPIRE', place, idle)
  return {fresh .. '-0', {}}
end
local newest = tonumber(found[2])
local position = found[1] .. '-' .. string.format('%.0f', newest)
if epoch ~= found[1] or since >= newest then return {position, {}} end
local oldest = string.format('%.0f', math.max(now() - age, 0))
local kept = redis.call('XREVRANGE', stream, '+', oldest, 'COUNT', math.min(newest - since, size))
local payloads = {}
for i = #kept, 1, -1 do payloads[#payloads + 1] = kept[i][2][2] end
return {position, payloads}
"""
)
"""KEYS stream, position; ARGV epoch and offset to recover from (an empty epoch: only the newest
position), size, age and idle time in ms, an epoch in case one begins
-> the newest position, and the payloads after that one which are kept, in order."""
