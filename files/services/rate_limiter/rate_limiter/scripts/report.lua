-- Remembers until when the provider itself refuses a tenant. A shorter report does not end a longer one.
-- KEYS     the key of the block
-- ARGV     microseconds from now
-- returns  {clock, microseconds until the block ends}
local till = clock + math.max(tonumber(ARGV[1]), blocked(KEYS[1]))
call('SET', KEYS[1], text(till))
expire_at(KEYS[1], till)
return {clock, till - clock}
