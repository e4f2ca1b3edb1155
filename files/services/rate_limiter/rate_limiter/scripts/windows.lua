-- What every script begins with: how each kind of window is read, asked and written. All times are microseconds of the Redis clock.
local call = redis.call
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
-- How far ahead a start may be booked.
local FAR = 3600 * 1000000

local function number_at(key, index)
  return tonumber(call('LINDEX', key, index))
end

local function text(number)
  return string.format(number % 1 > 0 and '%.1f' or '%.0f', number)
end

local function expire_at(key, moment)
  call('PEXPIRE', key, math.max(1, math.ceil((moment - clock) / 1000)))
end

-- A window `w` has `key`, `kind`, `limit`; `look` adds `used` (units that count), `now` (the date of an admission), `ahead` (before
-- which nothing is admitted) and `pending` (units this script is about to add).
local kinds = {}

-- Exact log: a list of admission dates, newest first, one entry per unit. One that ends in .5 is booked: its start may lie ahead,
-- and nobody goes before it. A Pi has no battery clock, so plain entries may lie ahead too, when the clock was set back: up to a span
-- they wait until it catches up, further ahead they would shut the quota for as long as the clock was wrong and count from now.
kinds.log = {}

function kinds.log.look(w)
  local used = call('LLEN', w.key)
  w.length = used
  if used > 0 then
    local newest = number_at(w.key, 0)
    local booked = newest % 1 > 0
    if newest > clock + w.span + (booked and FAR or 0) then
      for index = 0, used - 1 do
        call('LSET', w.key, index, text(clock))
      end
      expire_at(w.key, clock + w.span)
      newest, booked = clock, false
    end
    if not booked then
      w.now = math.max(clock, newest)
    elseif newest > clock then
      w.ahead = newest
    end
    -- Entries a whole span old no longer count. The next admission drops them: a denial writes nothing.
    if number_at(w.key, -1) <= w.now - w.span then
      local low, high = 0, used
      while low < high do
        local middle = math.floor((low + high) / 2)
        if number_at(w.key, middle) > w.now - w.span then
          low = middle + 1
        else
          high = middle
        end
      end
      used = low
    end
    w.newest = newest
  end
  w.used = used
end

function kinds.log.earliest(w, cost)
  -- It fits once only the newest `room` entries still count.
  local room = w.limit - cost - w.pending
  if w.used <= room then
    return w.ahead
  elseif room < 0 then
    return w.now + w.span
  end
  return math.max(w.ahead, number_at(w.key, room) + w.span)
end

function kinds.log.reset(w)
  if w.pending > 0 then
    return w.now + w.span - clock
  end
  return w.used > 0 and w.newest + w.span - clock or 0
end

function kinds.log.take(w, date)
  local entry = text(date)
  if w.pending == 1 then
    call('LPUSH', w.key, entry)
  else
    local entries = {}
    for index = 1, w.pending do
      entries[index] = entry
    end
    call('LPUSH', w.key, unpack(entries))
  end
  if w.used < w.length then
    call('LTRIM', w.key, 0, w.used + w.pending - 1)
  end
  expire_at(w.key, date + w.span)
end

function kinds.log.give_back(w, date, cost)
  call('LREM', w.key, cost, text(date))
end

-- GCRA: a bucket of `limit` units that refills by one every `step`; kept is when it is full again.
kinds.gcra = {}

function kinds.gcra.look(w)
  local whole = w.limit * w.step
  w.full = tonumber(call('GET', w.key) or clock)
  if w.full > clock + whole + FAR then
    w.full = clock + whole
  end
  w.full = math.max(w.full, clock)
  w.used = math.ceil((w.full - clock) / w.step)
end

function kinds.gcra.earliest(w, cost)
  return math.max(clock, w.full + (w.pending + cost - w.limit) * w.step)
end

function kinds.gcra.reset(w)
  return w.full + w.pending * w.step - clock
end

function kinds.gcra.take(w, date)
  local full = math.max(w.full, date) + w.pending * w.step
  call('SET', w.key, text(full))
  expire_at(w.key, full)
end

function kinds.gcra.give_back(w, _, cost)
  local full = w.full - cost * w.step
  if full > clock then
    call('SET', w.key, text(full))
    expire_at(w.key, full)
  else
    call('DEL', w.key)
  end
end

-- Calendar: "<start of the period> <units>", gone when the period ends. Its dates come from the caller, who knows time zones.
kinds.calendar = {}

function kinds.calendar.look(w)
  if clock >= w.finish then
    w.start, w.finish = w.finish, w.next_finish
  end
  local kept = call('GET', w.key)
  w.used = 0
  if kept then
    local start, units = kept:match('^(%d+) (%d+)$')
    if tonumber(start) >= w.start then
      w.used = tonumber(units)
    end
  end
end

function kinds.calendar.earliest(w, cost)
  return w.used + w.pending + cost <= w.limit and clock or w.finish
end

function kinds.calendar.reset(w)
  return w.used + w.pending > 0 and w.finish - clock or 0
end

function kinds.calendar.take(w)
  call('SET', w.key, text(w.start) .. ' ' .. text(w.used + w.pending))
  expire_at(w.key, w.finish)
end

function kinds.calendar.give_back(w, _, cost)
  if w.used > 0 then
    w.pending = -math.min(cost, w.used)
    kinds.calendar.take(w)
  end
end

-- Reads the window that begins at ARGV[index]; returns it and the index behind it.
local function window(key, index)
  local kind, limit, first = ARGV[index], tonumber(ARGV[index + 1]), tonumber(ARGV[index + 2])
  local w = {key = key, kind = kinds[kind], limit = limit, now = clock, ahead = clock, pending = 0}
  if kind == 'log' then
    w.span = first
  elseif kind == 'gcra' then
    w.step = first
  else
    w.start, w.finish, w.next_finish = first, tonumber(ARGV[index + 3]), tonumber(ARGV[index + 4])
    index = index + 2
  end
  w.kind.look(w)
  return w, index + 3
end

-- Microseconds until the provider's own block of this tenant ends.
local function blocked(key)
  local till = call('GET', key)
  return till and math.max(0, tonumber(till) - clock) or 0
end
