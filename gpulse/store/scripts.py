"""Presence as Lua: the atomic steps of :class:`~gpulse.store.client.RedisStore`.

Each script runs alone in the server, and what it publishes goes out with what it changed.  Key
names, for the app name ``APP`` (the braces put all of them into one slot of a cluster)::

    {APP}:presence                 sorted set   owner -> end of its lease, ms of the server's clock
    {APP}:presence:held:OWNER      hash         pair -> the owner's count of connections
    {APP}:presence:members:KEY     hash         member -> total over all owners
    {APP}:presence:wills:KEY       hash         member -> note
    {APP}:presence:gone            sorted set   pair -> when it was announced gone, ms

A *pair* is two strings in one, ``BYTES:FIRST SECOND`` without the blank, where BYTES is the length
of FIRST: a key and a member, or, as a *note*, a channel and a payload.  An empty note is none.

``KEYS[1]`` is always ``{APP}:presence``; the other names are made from it.  ``KEYS[2]`` is given on
a cluster only: there a script may publish to its own slot, so notes go out whole on the sharded
channel ``{APP}:notes``, and workers take them apart.  Needs a server that
replicates effects (Redis 5, any Valkey), for the scripts read the clock before they write.
"""

PRELUDE = """
local leases = KEYS[1]
local gone = leases .. ':gone'

local function held_by(owner) return leases .. ':held:' .. owner end
local function members_of(key) return leases .. ':members:' .. key end
local function wills_of(key) return leases .. ':wills:' .. key end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function split(pair)
  local colon = string.find(pair, ':', 1, true)
  local stop = colon + tonumber(string.sub(pair, 1, colon - 1))
  return string.sub(pair, colon + 1, stop), string.sub(pair, stop + 1)
end

local function tell(note)
  if not note or note == '' then return end
  if KEYS[2] then
    redis.call('SPUBLISH', KEYS[2], note)
  else
    redis.call('PUBLISH', split(note))
  end
end

local function count_of(owner, pair)
  return tonumber(redis.call('HGET', held_by(owner), pair) or 0)
end

local function hold(pair, owner, count)
  local key, member = split(pair)
  local before = count_of(owner, pair)
  redis.call('HSET', held_by(owner), pair, count)
  return redis.call('HINCRBY', members_of(key), member, count - before), before
end

local function set_will(pair, will)
  local key, member = split(pair)
  if will ~= '' then redis.call('HSET', wills_of(key), member, will) end
end

local function let_go(pair, count, farewell)
  local key, member = split(pair)
  local total = redis.call('HINCRBY', members_of(key), member, -count)
  if total > 0 then return total end
  local will = redis.call('HGET', wills_of(key), member)
  redis.call('HDEL', members_of(key), member)
  redis.call('HDEL', wills_of(key), member)
  redis.call('ZADD', gone, now(), pair)
  if farewell ~= '' then tell(farewell) else tell(will) end
  return 0
end
"""

JOIN = """
local pair, owner, will, hello, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('ZADD', leases, 'NX', now() + lease, owner)
local total, before = hold(pair, owner, 1)
set_will(pair, will)
if before == 0 and total == 1 then
  redis.call('ZREM', gone, pair)
  tell(hello)
end
return total
"""
"""-> the member's new total."""

LEAVE = """
local pair, owner, farewell, not_held = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local count = count_of(owner, pair)
if count == 0 then return not_held end
redis.call('HDEL', held_by(owner), pair)
return let_go(pair, count, farewell)
"""
"""-> the member's remaining total, or ``not_held``."""

RESTORE = """
local owner, lease, recall = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZADD', leases, 'NX', now() + lease, owner)
for i = 4, #ARGV, 4 do
  local pair, count, will, hello = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local _, before = hold(pair, owner, count)
  if before == 0 then
    set_will(pair, will)
    -- Who is remembered as gone is held by nobody else.
    local left = tonumber(redis.call('ZSCORE', gone, pair) or 0)
    redis.call('ZREM', gone, pair)
    if left > now() - recall then tell(hello) end
  end
end
return 0
"""
"""-> 0."""

RENEW = """
local owner, lease = ARGV[1], tonumber(ARGV[2])
redis.call('ZADD', leases, now() + lease, owner)
local counts, sum = redis.call('HVALS', held_by(owner)), 0
for i = 1, #counts do sum = sum + counts[i] end
return {#counts, sum}
"""
"""-> how many members the owner holds, and the sum of its counts.  Summed up here, 2 ms for 15,000,
so that there is no second number to be kept equal to the first ones."""

RELEASE = """
local owner, cursor, page, only_expired = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if only_expired == '1' then
  local ends = redis.call('ZSCORE', leases, owner)
  if not ends or tonumber(ends) >= now() then return {'0', {}} end
end
local found = redis.call('HSCAN', held_by(owner), cursor, 'COUNT', page)
local pairs_left = {}
for i = 1, #found[2], 2 do
  local pair, count = found[2][i], tonumber(found[2][i + 1])
  redis.call('HDEL', held_by(owner), pair)
  let_go(pair, count, '')
  pairs_left[#pairs_left + 1] = pair
end
if redis.call('EXISTS', held_by(owner)) == 0 then redis.call('ZREM', leases, owner) end
return {found[1], pairs_left}
"""
"""-> the cursor of the next page ('0': there is none) and the pairs of this one.  In pages, because
a server answers nobody else while a script runs."""

EXPIRED = """
local recall, most = tonumber(ARGV[1]), ARGV[2]
redis.call('ZREMRANGEBYSCORE', gone, '-inf', now() - recall)
redis.call('ZREMRANGEBYRANK', gone, 0, -1 - tonumber(ARGV[3]))
return redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. now(), 'LIMIT', 0, most)
"""
"""-> owners whose lease ran out, the longest dead first; trims what is remembered of the gone."""
