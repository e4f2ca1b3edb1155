-- Gives a booking back, once.
-- KEYS     the key of the booking, then one per window
-- ARGV     the windows
-- returns  {clock, units given back, their date}; 0 units: there is no such booking, or no longer
local kept = call('GET', KEYS[1])
if not kept then
  return {clock, 0, '0'}
end
local date, cost = kept:match('^(%S+) (%d+)$')
date, cost = tonumber(date), tonumber(cost)
call('DEL', KEYS[1])
local argument = 1
for index = 2, #KEYS do
  local w
  w, argument = window(KEYS[index], argument)
  w.kind.give_back(w, date, cost)
end
return {clock, cost, text(date)}
