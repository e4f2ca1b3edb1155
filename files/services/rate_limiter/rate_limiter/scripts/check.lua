-- Takes units, or none. Checks are judged in their order; what one takes, the next one finds taken.
-- KEYS     per check: the key of its block, then one per window
-- ARGV     1: all checks or none, 0: each for itself; then per check: cost, number of windows, the windows
-- returns  {clock, per check: taken (0 or 1), blocked, then per window: units that counted before, reset_in, wait (-1 = never)}
local together = ARGV[1] == '1'
local reply, known, order = {clock}, {}, {}
local key, argument, failed, flags = 1, 2, false, {}

while argument <= #ARGV do
  local cost, count = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  argument = argument + 2
  local wait = blocked(KEYS[key])
  local fits = cost == 0 or wait == 0
  local first = #reply + 1
  reply[first], reply[first + 1] = 0, wait
  local mine = {}
  for index = 1, count do
    local name = KEYS[key + index]
    local w, behind = known[name], nil
    if w then
      behind = argument + (ARGV[argument] == 'calendar' and 5 or 3)
    else
      w, behind = window(name, argument)
      known[name], order[#order + 1] = w, w
    end
    argument = behind
    mine[index] = w
    local slot = first + index * 3 - 1
    reply[slot] = w.used + w.pending
    if cost == 0 then
      reply[slot + 2] = 0
    elseif cost > w.limit then
      fits, reply[slot + 2] = false, -1
    else
      local earliest = w.kind.earliest(w, cost)
      local late = earliest > w.now
      fits = fits and not late
      reply[slot + 2] = late and earliest - clock or 0
    end
  end
  for index, w in ipairs(mine) do
    if fits then
      w.pending = w.pending + cost
    end
    reply[first + index * 3] = w.kind.reset(w)
  end
  reply[first], flags[#flags + 1] = fits and 1 or 0, first
  failed = failed or not fits
  key = key + count + 1
end

if together and failed then
  for _, flag in ipairs(flags) do
    reply[flag] = 0
  end
else
  for _, w in ipairs(order) do
    if w.pending > 0 then
      w.kind.take(w, w.now)
    end
  end
end
return reply
