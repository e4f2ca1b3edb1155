-- What is asked most, made short: checks that fall under one exact log each, each for itself. It stops at the first whose log
-- needs more care (booked starts, a clock that was set back): from there on `check` goes on.
-- KEYS     per check: the key of its block, its log
-- ARGV     per check: limit, span, cost
-- returns  {clock, per check as `check` does: taken, blocked, units that counted before, reset_in, wait}
local call = redis.call
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local date = string.format('%.0f', clock)
local reply = {clock}

for first = 1, #ARGV, 3 do
  local limit, span, cost = tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
  local number = (first - 1) / 3
  local till, key = call('GET', KEYS[2 * number + 1]), KEYS[2 * number + 2]
  local blocked = till and math.max(0, till - clock) or 0
  local length = call('LLEN', key)
  local used, reset_in = length, 0
  if length > 0 then
    local newest, old = tonumber(call('LINDEX', key, 0)), clock - span
    if newest > clock then
      return reply
    end
    -- Mostly few have grown old since the last time: look from the oldest in growing steps, then between the last two.
    if tonumber(call('LINDEX', key, -1)) <= old then
      local low, high, step = 0, length - 1, 1
      while high - step >= 0 and tonumber(call('LINDEX', key, high - step)) <= old do
        high, step = high - step, step * 2
      end
      low = math.max(0, high - step)
      while low < high do
        local middle = math.floor((low + high) / 2)
        if tonumber(call('LINDEX', key, middle)) > old then
          low = middle + 1
        else
          high = middle
        end
      end
      used = low
    end
    reset_in = used > 0 and newest + span - clock or 0
  end

  local taken, wait, room = 0, 0, limit - cost
  if cost == 0 then
    taken = 1
  elseif room < 0 then
    wait = -1
  elseif used > room then
    wait = call('LINDEX', key, room) + span - clock
  elseif blocked == 0 then
    taken, reset_in = 1, span
    if cost == 1 then
      call('LPUSH', key, date)
    else
      local dates = {}
      for index = 1, cost do
        dates[index] = date
      end
      call('LPUSH', key, unpack(dates))
    end
    if used < length then
      call('LTRIM', key, 0, used + cost - 1)
    end
    call('PEXPIRE', key, math.ceil(span / 1000))
  end
  local place = 5 * number + 2
  reply[place], reply[place + 1], reply[place + 2], reply[place + 3], reply[place + 4] = taken, blocked, used, reset_in, wait
end
return reply
