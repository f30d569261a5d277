-- Checks that the server accepts the calls of the other scripts: runs each of their commands on a
-- key of its own. It fails on a replica, on a full server, on one without enough replicas, and for
-- a user without a permission, as the other scripts do.
--
-- KEYS     the probe's key
-- ARGV     1  seconds to keep it
--          2  1 if it stays after the call, 0 if nothing does
-- Returns  "ok"
--
-- A script and not single commands: Redis checks permissions and memory differently in a script.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 1, 2, 0

local key, kept_seconds, stays = KEYS[1], ARGV[1], ARGV[2]

local function check_texts()
  call('TIME')
  call('SET', key, '1', 'EX', kept_seconds)
  call('INCR', key)
  call('GET', key)
  call('MGET', key)
  call('EXISTS', key)
  call('TTL', key)
  call('PTTL', key)
  call('EXPIRE', key, kept_seconds)
  call('DEL', key)
end

local function check_sorted_sets()
  call('ZADD', key, '1', 'a', '2', 'b', '3', 'c')
  call('ZCARD', key)
  call('ZCOUNT', key, '-inf', '+inf')
  call('ZRANGE', key, '0', '0')
  call('ZRANGEBYSCORE', key, '1', '1')
  call('ZREVRANGEBYSCORE', key, '1', '1')
  call('ZREVRANK', key, 'a')
  call('ZSCORE', key, 'a')
  call('ZREM', key, 'a')
  call('ZREMRANGEBYRANK', key, '0', '0')
  call('ZREMRANGEBYSCORE', key, '3', '3')
  call('DEL', key)
end

local function check_hashes()
  call('HSET', key, 'a', '1')
  call('HSETNX', key, 'b', '1')
  call('HEXISTS', key, 'a')
  call('HGET', key, 'a')
  call('HMGET', key, 'a')
  call('HGETALL', key)
  call('HLEN', key)
  call('HDEL', key, 'a', 'b')
  call('DEL', key)
end

local function check_lists()
  call('LPUSH', key, 'a')
  call('LLEN', key)
  call('LRANGE', key, '0', '0')
  call('LTRIM', key, '0', '0')
  call('DEL', key)
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  check_texts()
  check_sorted_sets()
  check_hashes()
  check_lists()
  if stays == '1' then
    call('SET', key, '1', 'EX', kept_seconds)
  end
  return 'ok'
end)
