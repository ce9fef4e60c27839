# SPDX-License-Identifier: Apache-2.0
"""What the atomic transport has the Redis server do in one piece. Needs Redis 6.2 or any Valkey.

Every script writes before it removes: should one end halfway, a message is there twice, never not at all.
"""

import hashlib
from typing import Final

TAKE: Final = """
-- KEYS: unacked, unacked_index, deliveries, dead letters, then the lists to take from, first choice first.
-- ARGV: largest number to take, '1' for consumers that do not acknowledge, the queue's name, the dead letters' name,
--       for how many seconds deliveries are remembered, then the tags that are acknowledged.
-- Gives {tag, losses, message, tag, losses, message, ...}, {reason, ...} of malformed ones, and how many are left.
local unacked, index, deliveries, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, no_ack, queue, dead_queue, keep = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3], ARGV[4], ARGV[5]

-- A first write that the server allows when its memory is full lets it allow the others: what is taken only moves.
redis.call('ZREM', index, '')
for first = 6, #ARGV, 1000 do
    local last = math.min(first + 999, #ARGV)
    redis.call('ZREM', index, unpack(ARGV, first, last))
    redis.call('HDEL', unacked, unpack(ARGV, first, last))
    redis.call('HDEL', deliveries, unpack(ARGV, first, last))
end

local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])

local function is_utf8(text)
    if not text:find('[\\128-\\255]') then return true end
    text = text:gsub('[\\194-\\223][\\128-\\191]', '?'):gsub('\\224[\\160-\\191][\\128-\\191]', '?')
    text = text:gsub('\\237[\\128-\\159][\\128-\\191]', '?'):gsub('[\\225-\\239][\\128-\\191][\\128-\\191]', '?')
    text = text:gsub('\\240[\\144-\\191][\\128-\\191][\\128-\\191]', '?')
    text = text:gsub('[\\241-\\243][\\128-\\191][\\128-\\191][\\128-\\191]', '?')
    text = text:gsub('\\244[\\128-\\143][\\128-\\191][\\128-\\191]', '?')
    return not text:find('[\\128-\\255]')
end

-- The envelope, or nil and what is wrong with it.
local function opened(raw)
    local good, message = pcall(cjson.decode, raw)
    if not good or not is_utf8(raw) then return nil, 'not_json' end
    if type(message) ~= 'table' or not raw:find('^%s*{') then return nil, 'not_an_envelope' end
    local properties = message.properties
    if type(properties) ~= 'table' then return nil, 'no_properties' end
    if message.body == nil then return nil, 'no_body' end
    if type(properties.delivery_tag) ~= 'string' or properties.delivery_tag == '' then return nil, 'no_delivery_tag' end
    local info = properties.delivery_info
    if type(info) ~= 'table' or type(info.exchange) ~= 'string' or type(info.routing_key) ~= 'string' then
        return nil, 'no_delivery_info'
    end
    if message.headers == nil or message.headers == cjson.null then message.headers = {} end
    if type(message.headers) ~= 'table' then return nil, 'no_headers' end
    return message
end

local ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
local function base64(bytes)
    local out = {}
    for i = 1, #bytes, 3 do
        local a, b, c = bytes:byte(i, i + 2)
        local n = a * 65536 + (b or 0) * 256 + (c or 0)
        for shift = 18, 0, -6 do
            local at = math.floor(n / 2 ^ shift) % 64 + 1
            out[#out + 1] = ALPHABET:sub(at, at)
        end
        if not b then out[#out - 1] = '=' end
        if not c then out[#out] = '=' end
    end
    return table.concat(out)
end

-- A message that any consumer of the dead letters can read, with the bytes as they were for a body.
local function wrapped(raw, reason, tag)
    return cjson.encode({
        body = base64(raw), ['content-type'] = 'application/octet-stream', ['content-encoding'] = 'binary',
        headers = {['x-quarantine-reason'] = reason, ['x-quarantine-queue'] = queue},
        properties = {
            body_encoding = 'base64', delivery_tag = tag, delivery_mode = 2, priority = 0,
            delivery_info = {exchange = '', routing_key = dead_queue},
        },
    })
end

local taken, malformed, hashed, scored, letters, trims = {}, {}, {}, {}, {}, {}
local seen, number = {}, 0
for key = 5, #KEYS do
    local raws = limit > number and redis.call('LRANGE', KEYS[key], number - limit, -1) or {}
    for at = #raws, 1, -1 do
        local raw = raws[at]
        number = number + 1
        local message, reason = opened(raw)
        if message then
            local info, tag = message.properties.delivery_info, message.properties.delivery_tag
            if not no_ack then
                -- Somebody holds a message of this tag: neither may take the place of the other.
                if seen[tag] or redis.call('HEXISTS', unacked, tag) == 1 then
                    tag = tag .. ':' .. now .. ':' .. number
                end
                seen[tag] = true
                hashed[#hashed + 1] = tag
                hashed[#hashed + 1] = table.concat({
                    '[', raw, ', ', cjson.encode(info.exchange), ', ', cjson.encode(info.routing_key), ']'})
                scored[#scored + 1] = now
                scored[#scored + 1] = tag
            end
            local losses = 0
            if not no_ack and (info.redelivered == true or message.headers.redelivered == true) then
                losses = redis.call('HINCRBY', deliveries, tag, 1)
                redis.call('EXPIRE', deliveries, keep)
            end
            taken[#taken + 1] = tag
            taken[#taken + 1] = losses
            taken[#taken + 1] = raw
        else
            malformed[#malformed + 1] = reason
            letters[#letters + 1] = wrapped(raw, reason, 'malformed:' .. now .. ':' .. number)
        end
    end
    trims[key] = #raws
end

if #hashed > 0 then
    redis.call('HSET', unacked, unpack(hashed))
    redis.call('ZADD', index, unpack(scored))
end
if #letters > 0 then redis.call('LPUSH', dead, unpack(letters)) end
local left = 0
for key = 5, #KEYS do
    if trims[key] > 0 then redis.call('LTRIM', KEYS[key], 0, -trims[key] - 1) end
    left = left + redis.call('LLEN', KEYS[key])
end
return {taken, malformed, left}
"""
"""Acknowledge, then take, with kombu's own records in kombu's own format and the server's time."""

BURY: Final = """
-- KEYS: unacked, unacked_index, deliveries, dead letters. ARGV: tag, dead letter. Gives whether there was one.
redis.call('ZREM', KEYS[2], '')
local was = redis.call('HEXISTS', KEYS[1], ARGV[1])
if was == 1 then redis.call('LPUSH', KEYS[4], ARGV[2]) end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
return was
"""
"""Move a message that is held to the dead letters."""


def digest(script: str) -> str:
    """The name by which the server knows `script` once it was sent there."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
