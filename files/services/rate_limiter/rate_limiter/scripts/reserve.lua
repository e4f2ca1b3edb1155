-- Books the first moment at which the units fit, behind everybody who came before.
-- KEYS     the key of the block, of the booking, then one per window
-- ARGV     longest wait, cost, most entries of a log, number of windows, the windows
-- returns  {clock, booked (0 or 1), wait (-1 = never), then per window: units that counted before, reset_in, date (0 = none)}
local longest, cost, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local start, fits, never, windows, argument = clock + blocked(KEYS[1]), true, false, {}, 5

for index = 1, tonumber(ARGV[4]) do
  local w
  w, argument = window(KEYS[index + 2], argument)
  windows[index] = w
  if cost > w.limit then
    never = true
  else
    local earliest = w.kind.earliest(w, cost)
    if w.length and earliest > w.now then
      -- A date of its own for everybody.
      earliest = math.floor(math.max(earliest, w.ahead)) + 1
    elseif earliest <= w.now then
      earliest = clock
    end
    start = math.max(start, earliest)
    fits = fits and (w.length or 0) + cost <= most
  end
end
for _, w in ipairs(windows) do
  -- What another period will have left is not known yet.
  fits = fits and not (w.finish and start >= w.finish)
end

local wait = start - clock
fits = fits and not never and wait <= longest
local reply = {clock, fits and 1 or 0, never and -1 or wait}
for _, w in ipairs(windows) do
  local date = 0
  reply[#reply + 1] = w.used
  if fits then
    date = wait > 0 and start + 0.5 or w.now
    w.pending = cost
    w.kind.take(w, date)
  end
  reply[#reply + 1] = fits and math.max(w.kind.reset(w), 0) or w.kind.reset(w)
  reply[#reply + 1] = date > 0 and text(date) or '0'
end
if fits then
  call('SET', KEYS[2], text(wait > 0 and start + 0.5 or clock) .. ' ' .. text(cost))
  expire_at(KEYS[2], start + 60 * 1000000)
end
return reply
