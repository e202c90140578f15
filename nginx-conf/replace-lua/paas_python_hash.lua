-- CPython 2.7's hash(text) % n, floor modulo as in Python: the classic way to spread sites over backends in Lua.
-- hash64 is what a 64-bit Python computes, hash32 a 32-bit one, or a port that uses LuaJIT's 32-bit bit operations.
local bit = require "bit"
local bxor, lshift, tobit = bit.bxor, bit.lshift, bit.tobit

local M = {}

function M.hash64(text)
    if text == "" then return 0LL end
    local x = lshift(0LL + text:byte(1), 7)
    for at = 1, #text do
        x = bxor(1000003LL * x, 0LL + text:byte(at))
    end
    x = bxor(x, 0LL + #text)
    if x == -1LL then x = -2LL end
    return x
end

function M.hash32(text)
    if text == "" then return 0 end
    local x = lshift(text:byte(1), 7)
    for at = 1, #text do
        x = bxor(tobit(1000003 * x), text:byte(at))
    end
    x = bxor(x, #text)
    if x == -1 then x = -2 end
    return x
end

-- The server, of a list, that a text belongs to.
function M.server(servers, hash, text)
    local rest = tonumber(hash(text) % #servers)
    if rest < 0 then rest = rest + #servers end
    return servers[rest + 1]
end

return M
