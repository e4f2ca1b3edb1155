-- Exact sliding log: in any span of `window` microseconds at most `limit` units are admitted.
-- KEYS[1]  list of admission times (microseconds of the Redis clock), newest first, one entry per unit
-- ARGV     limit, window (microseconds), cost (0 looks without taking)
-- returns  {allowed (0 or 1), remaining, reset_in, retry_after}, times in microseconds, retry_after -1 = never
local key = KEYS[1]
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function admitted_at(index)
  return tonumber(redis.call('LINDEX', key, index))
end

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local now = clock
local used = redis.call('LLEN', key)

-- A Pi has no battery clock, so the clock may be set back. Entries up to a window ahead wait until it catches up.
-- Entries further ahead would shut the quota for as long as the clock was wrong: they count from now instead.
if used > 0 then
  if admitted_at(0) > clock + window then
    for index = 0, used - 1 do
      redis.call('LSET', key, index, string.format('%.0f', clock))
    end
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
  end
  now = math.max(clock, admitted_at(0))
end

-- Entries a whole window old no longer count. They are dropped by the next admission only: a denial writes nothing.
local low, high = 0, used
while low < high do
  local middle = math.floor((low + high) / 2)
  if admitted_at(middle) > now - window then
    low = middle + 1
  else
    high = middle
  end
end
used = low

local remaining = math.max(0, limit - used)
local allowed = cost <= remaining
if allowed and cost > 0 then
  for _ = 1, cost do
    redis.call('LPUSH', key, string.format('%.0f', now))
  end
  used = used + cost
  remaining = remaining - cost
  redis.call('LTRIM', key, 0, used - 1)
  redis.call('PEXPIRE', key, math.ceil((now + window - clock) / 1000))
end

local reset_in = used > 0 and admitted_at(0) + window - clock or 0
local retry_after = 0
if cost > limit then
  retry_after = -1
elseif not allowed then
  -- The cost fits once only the newest `limit - cost` entries still count.
  retry_after = admitted_at(limit - cost) + window - clock
end
return {allowed and 1 or 0, remaining, reset_in, retry_after}
