# SPDX-License-Identifier: Apache-2.0
"""The Lua scripts of the atomic transport. They need Redis 6.2 or any Valkey.

Each script writes before it removes: if it breaks off halfway, a message is stored twice, and is never missing.
"""

import hashlib
from typing import Final

MAX_ENTRY: Final = 2 * 1024 * 1024
"""Bytes of a list entry that `TAKE` decodes. A larger one becomes a dead letter."""
MAX_WRAPPED: Final = 4096
"""Bytes of a malformed entry that its dead letter keeps: the script encodes them while the server waits."""
MAX_DEAD_LETTERS: Final = 20_000
"""Entries of the dead-letter queue. Beyond, the oldest are removed."""

TAKE: Final = (
    """
-- KEYS: unacked, unacked_index, deliveries, dead letters, then the lists to take from, in order of priority.
-- ARGV: largest number of messages, '1' for consumers without acknowledgement, the queue's name, the name of the
--       dead-letter queue, expiry of the loss counts in seconds, then the delivery tags to acknowledge.
-- Returns {tag, losses, message, tag, losses, message, ...}, {reason, ...} of the malformed messages, and the number
-- of messages left in the lists.
local unacked, index, deliveries, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, no_ack, queue, dead_queue, keep = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3], ARGV[4], ARGV[5]

-- A server whose memory is full allows a script all its writes if the first one needs no memory, as this one.
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

-- Return the envelope; or nil and the reason.
local function decode(raw)
    if #raw > MAX_ENTRY then return nil, 'oversize' end
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

-- Return a dead letter that any kombu consumer can read, with the original bytes as its body; of many, the first.
local function wrap(raw, reason, tag)
    return cjson.encode({
        body = base64(raw:sub(1, MAX_WRAPPED)), ['content-type'] = 'application/octet-stream', ['content-encoding'] = 'binary',
        headers = {
            ['x-quarantine-reason'] = reason, ['x-quarantine-queue'] = queue,
            ['x-quarantine-size'] = #raw > MAX_WRAPPED and #raw or nil,
        },
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
        local message, reason = decode(raw)
        if message then
            local info, tag = message.properties.delivery_info, message.properties.delivery_tag
            if not no_ack then
                -- A message with this tag is unacknowledged already: the new record must not replace it.
                if seen[tag] or redis.call('HEXISTS', unacked, tag) == 1 then
                    tag = tag .. ':' .. now .. ':' .. number
                end
                seen[tag] = true
                hashed[#hashed + 1] = tag
                -- A redelivery returns to the queue that the message was taken from, whatever the sender wrote.
                hashed[#hashed + 1] = table.concat({'[', raw, ', "", ', cjson.encode(queue), ']'})
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
            letters[#letters + 1] = wrap(raw, reason, 'malformed:' .. now .. ':' .. number)
        end
    end
    trims[key] = #raws
end

if #hashed > 0 then
    redis.call('HSET', unacked, unpack(hashed))
    redis.call('ZADD', index, unpack(scored))
end
if #letters > 0 then
    redis.call('LPUSH', dead, unpack(letters))
    redis.call('LTRIM', dead, 0, MAX_DEAD_LETTERS - 1)
end
local left = 0
for key = 5, #KEYS do
    if trims[key] > 0 then redis.call('LTRIM', KEYS[key], 0, -trims[key] - 1) end
    left = left + redis.call('LLEN', KEYS[key])
end
return {taken, malformed, left}
""".replace("MAX_ENTRY", str(MAX_ENTRY))
    .replace("MAX_WRAPPED", str(MAX_WRAPPED))
    .replace("MAX_DEAD_LETTERS", str(MAX_DEAD_LETTERS))
)
"""Acknowledge messages, then take others: records in kombu's format, with the server's time."""

MOVE_TO_DEAD_LETTERS: Final = """
-- KEYS: unacked, unacked_index, deliveries, dead letters. ARGV: tag, dead letter. Returns 1 if the tag was unacknowledged.
redis.call('ZREM', KEYS[2], '')
local found = redis.call('HEXISTS', KEYS[1], ARGV[1])
if found == 1 then
    redis.call('LPUSH', KEYS[4], ARGV[2])
    redis.call('LTRIM', KEYS[4], 0, MAX_DEAD_LETTERS - 1)
end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
return found
""".replace("MAX_DEAD_LETTERS", str(MAX_DEAD_LETTERS))
"""Move an unacknowledged message to the dead-letter queue."""


def digest(script: str) -> str:
    """Return the SHA-1 by which `EVALSHA` names `script`, hexadecimal."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
