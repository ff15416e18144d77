"""What the server does in one step, in Lua: it works with Redis from 6.2 on, and with Valkey.

All times are the server's own, so that the clocks of the machines may differ.
"""

import hashlib


class Script:
    """A script, and the name that the server has for it."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


CHANGE = Script("""
-- Gives to buckets and takes from them, in the order given; what is not there is not taken.
-- KEYS: the buckets, each the number of tokens left; a full one has no key.
-- ARGV: milliseconds for which a bucket is kept, its capacity, and for each one the number of its changes, and these.
-- Returns, for each change, 1 if it was made, and else 0.
local capacity = tonumber(ARGV[2])
local made, at = {}, 3
for _, bucket in ipairs(KEYS) do
  local left = math.min(tonumber(redis.call('GET', bucket) or capacity) or capacity, capacity)
  local last = at + tonumber(ARGV[at])
  for i = at + 1, last do
    local changed = left + tonumber(ARGV[i])
    if changed > -0.000001 then -- a third, three times, is a little less than one
      left = math.max(0, math.min(changed, capacity))
      made[#made + 1] = 1
    else
      made[#made + 1] = 0
    end
  end
  at = last + 1
  if left < capacity then
    redis.call('SET', bucket, string.format('%.17g', left), 'PX', ARGV[1])
  else
    redis.call('DEL', bucket)
  end
end
return made
""")

PAUSE = Script("""
-- Begins pauses, tells all processes of them, and says which are running.
-- KEYS: a sorted set of the origins, by the end of the pause of each, in milliseconds of the server's time.
-- ARGV: the channel, how many pauses are kept, and for each one that begins its origin and its milliseconds.
-- Returns, for each one that runs, the origin, and the milliseconds that are left.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV, 2 do
  local known = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or now)
  -- Many calls are told the same, a little after one another: that is worth a single message.
  if now + ARGV[i + 1] > math.max(now, known) + 50 then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[i + 1]), ARGV[i])
    redis.call('PUBLISH', ARGV[1], ARGV[i + 1] .. ' ' .. ARGV[i])
  end
end
if #ARGV > 2 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
  if last then
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
  end
end
local running = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for i = 2, #running, 2 do
  running[i] = running[i] - now
end
return running
""")
