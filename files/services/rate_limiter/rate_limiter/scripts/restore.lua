-- Writes back what a caller knows was admitted and Redis has not, or has no longer. The fuller of both counts; may be repeated.
-- KEYS     one window, or block
-- ARGV     "block" and its end; or the window, then: log: dates, newest first; gcra: when it is full; calendar: start, units
-- returns  {clock}
if ARGV[1] == 'block' then
  local till = math.max(tonumber(ARGV[2]), clock + blocked(KEYS[1]))
  call('SET', KEYS[1], text(till))
  expire_at(KEYS[1], till)
  return {clock}
end

local w, argument = window(KEYS[1], 1)
if ARGV[1] == 'gcra' then
  local full = math.max(w.full, tonumber(ARGV[argument]))
  call('SET', w.key, text(full))
  expire_at(w.key, full)
elseif ARGV[1] == 'calendar' then
  local units = tonumber(ARGV[argument + 1])
  if tonumber(ARGV[argument]) >= w.start and units > w.used then
    w.pending = units - w.used
    w.kind.take(w)
  end
elseif argument <= #ARGV then
  -- Both lists are sorted. What stands in both counts once, as often as it stands in the fuller one.
  local kept, merged, mine = call('LRANGE', w.key, 0, -1), {}, 1
  while mine <= #kept or argument <= #ARGV do
    local here, there = tonumber(kept[mine] or 0), tonumber(ARGV[argument] or 0)
    merged[#merged + 1] = text(math.max(here, there))
    mine = mine + (here >= there and 1 or 0)
    argument = argument + (there >= here and 1 or 0)
  end
  call('DEL', w.key)
  for first = 1, #merged, 1000 do
    call('RPUSH', w.key, unpack(merged, first, math.min(first + 999, #merged)))
  end
  expire_at(w.key, tonumber(merged[1]) + w.span)
end
return {clock}
