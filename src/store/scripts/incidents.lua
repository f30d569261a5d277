-- Decides when an alert counts as an occurrence, by the episodes of an anomaly's alerts.
-- domain/incidents.rs does the same in memory and explains the rules; tests compare both.
--
-- `incidents` is a hash. A field whose name is the fingerprint of 8 bytes holds the newest episode
-- of an alert: `EPISODE` of its start in the last delivery, its earliest start, the time until
-- which it is known to have fired, the newest delivery, and flags. The field `state` is "<start of
-- the last episode that counted> <time until which alerts fire that were too many>", where 0 stands
-- for none. All times are microseconds, which a double represents exactly until the year 2255.

local INCIDENTS = 10

local EPISODE, STATE = '>I7I7I7I7B', 'state'
local IS_OPEN, IS_COUNTED, IS_INTERRUPTED = 1, 2, 4
local MAX_FINGERPRINTS = 1000
local SECOND = 1000000
local PEER = 600 * SECOND
-- The time for which a mark holds.
local MARK_SECONDS = 90 * 86400

-- The rules for counting alerts: the unit, the time without a delivery after which an alert has
-- ended, the time after which an episode begins a new incident, and whether an end alone counts;
-- and the current time.
local policy = {}

local function unpack_episode(text)
  local delivered_start, start, last, delivered_at, flags = struct.unpack(EPISODE, text)
  return { delivered_start = delivered_start, start = start, last = last,
    delivered_at = delivered_at,
    is_open = flags % 2 >= IS_OPEN, is_counted = flags % 4 >= IS_COUNTED,
    is_interrupted = flags >= IS_INTERRUPTED }
end

local function pack_episode(episode)
  local flags = (episode.is_open and IS_OPEN or 0) + (episode.is_counted and IS_COUNTED or 0)
    + (episode.is_interrupted and IS_INTERRUPTED or 0)
  return struct.pack(EPISODE, episode.delivered_start, episode.start, episode.last,
    episode.delivered_at, flags)
end

-- Returns true if an episode fires at a time, as far as is known.
local function fires(episode, at)
  return episode.is_open and at <= episode.last + policy.stale_after
end

-- Returns the time until which an episode is known to have fired, as of the time `at`.
local function fired_until(episode, at)
  return fires(episode, at) and math.max(episode.last, at) or episode.last
end

-- The episodes of anomalies for which this call has read all of them, by key.
local all_episodes = {}

-- Returns all episodes of an anomaly by fingerprint. They are read once per call.
local function episodes_of(k)
  local name = KEYS[k + INCIDENTS]
  if not all_episodes[name] then
    local episodes, fields = { count = 0, by_fingerprint = {} }, call('HGETALL', name)
    for i = 1, #fields, 2 do
      if fields[i] ~= STATE then
        episodes.by_fingerprint[fields[i]] = unpack_episode(fields[i + 1])
        episodes.count = episodes.count + 1
      end
    end
    all_episodes[name] = episodes
  end
  return all_episodes[name]
end

-- Returns true if another alert was firing at a time.
local function is_covered(k, alert, at, overflow_until)
  if at <= overflow_until then
    return true
  end
  for fingerprint, episode in pairs(episodes_of(k).by_fingerprint) do
    if fingerprint ~= alert.fingerprint and episode.start <= at
      and at <= fired_until(episode, alert.delivered_at) then
      return true
    end
  end
  return false
end

-- Returns the time of the mark of a permanent fix, or nil if there is none. If another writer left
-- no time that is a number, it follows from the mark's remaining TTL.
local function fixed_at(k, stats)
  if stats.mark ~= '1' then
    return nil
  end
  local changed = tonumber(read_if_readable('HGET', KEYS[k + METADATA], 'permanent_fix_changed')
    or nil)
  if changed then
    return math.floor(changed * SECOND + 0.5)
  end
  local _, now = not_ahead(math.huge, 0)
  local remaining = math.max(call('PTTL', KEYS[k + PERMANENT_FIX]), 0) / 1000
  return math.floor((now - MARK_SECONDS + remaining) * SECOND)
end

-- Decides whether an episode that begins at `at` counts. Returns the verdict and, if it counts, the
-- start of the last episode that counted.
local function count_episode(k, stats, alert, at, state)
  local counted_start = math.max(state.counted_start, at)
  if state.counted_start > 0 and policy.unit ~= 'episode'
    and at < state.counted_start + policy.incident_max then
    local fixed = fixed_at(k, stats)
    -- The mark has ended the incident, unless an episode after it has counted.
    local is_first_after_fix = fixed and state.counted_start <= fixed and fixed < at
    if not is_first_after_fix and is_covered(k, alert, at, state.overflow_until) then
      return 'same_incident'
    end
  end
  return 'count', counted_start
end

-- Creates an episode that begins as it was delivered.
local function begin_episode(alert)
  return { delivered_start = alert.starts_at or alert.start, start = alert.start,
    last = alert.ends_at or alert.delivered_at, delivered_at = alert.delivered_at,
    is_open = alert.ends_at == nil, is_counted = true, is_interrupted = alert.is_interrupted }
end

-- Returns true if the newest delivery of `a` is before that of `b`.
local function is_older(a, b)
  return a.delivered_at < b.delivered_at
    or a.delivered_at == b.delivered_at and a.fingerprint < b.fingerprint
end

-- Adds an ended alert to their list, in which the oldest is last.
local function list_ended(episodes, fingerprint, episode)
  local entry, low, high = { fingerprint = fingerprint, delivered_at = episode.delivered_at }, 1,
    #episodes.ended + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_older(entry, episodes.ended[middle]) then
      low = middle + 1
    else
      high = middle
    end
  end
  table.insert(episodes.ended, low, entry)
end

-- Returns the ended alert with the oldest delivery as of the time `at`, or nil if all alerts fire.
-- They are listed when a second one is requested for the same time: a delivery may have thousands
-- of alerts.
local function oldest_ended(episodes, at)
  local is_wanted_again = episodes.wanted_at == at
  if not (is_wanted_again and episodes.ended) then
    local oldest
    episodes.wanted_at, episodes.ended = at, is_wanted_again and {} or nil
    for fingerprint, episode in pairs(episodes.by_fingerprint) do
      if fired_until(episode, at) < at then
        local entry = { fingerprint = fingerprint, delivered_at = episode.delivered_at }
        oldest = oldest and is_older(oldest, entry) and oldest or entry
        if episodes.ended then
          table.insert(episodes.ended, entry)
        end
      end
    end
    if episodes.ended then
      table.sort(episodes.ended, function(a, b) return is_older(b, a) end)
    end
    return oldest and oldest.fingerprint
  end
  while #episodes.ended > 0 do
    local oldest = episodes.ended[#episodes.ended]
    local episode = episodes.by_fingerprint[oldest.fingerprint]
    if episode and episode.delivered_at == oldest.delivered_at
      and fired_until(episode, at) < at then
      return oldest.fingerprint
    end
    table.remove(episodes.ended)
  end
  return nil
end

-- Decides about the episode of an unknown alert. At the limit, the ended alert with the oldest
-- delivery is forgotten; if all alerts fire, only the time is remembered.
local function put_episode(k, alert, episode, state, change)
  local all = all_episodes[KEYS[k + INCIDENTS]]
  if (all and all.count or call('HLEN', KEYS[k + INCIDENTS])) >= MAX_FINGERPRINTS
    and episodes_of(k).count >= MAX_FINGERPRINTS then
    local oldest = oldest_ended(episodes_of(k), alert.delivered_at)
    if not oldest then
      if episode.is_open then
        change.overflow_until = math.max(state.overflow_until, alert.delivered_at)
      end
      return
    end
    change.forgotten = oldest
  end
  change.episode = episode
end

-- Decides about a firing alert. `known` is its episode, which is changed. Returns the verdict.
local function decide_firing(k, stats, alert, known, state, change)
  local at, delivered_at, starts_at = alert.start, alert.delivered_at, alert.starts_at
  local function count(episode)
    local verdict, counted_start = count_episode(k, stats, alert, at, state)
    change.counted_start, change.episode = counted_start, episode
    return verdict
  end
  if not known then
    local verdict = count(nil)
    change.is_first = true
    put_episode(k, alert, begin_episode(alert), state, change)
    return verdict
  end
  known.is_open = fires(known, delivered_at)
  change.episode = known
  if not starts_at then
    -- Without a start, it belongs to the same episode while that is open.
    if known.is_open then
      known.last = math.max(known.last, delivered_at)
      known.delivered_at = math.max(known.delivered_at, delivered_at)
      return 'ongoing'
    elseif delivered_at <= known.last then
      return 'stale'
    end
    starts_at = delivered_at
  end
  if delivered_at < known.delivered_at then
    if known.is_counted or at < known.start or known.last < at then
      return 'stale'
    end
    known.is_counted = true
    return count(known)
  end
  if not known.is_counted and at <= known.last then
    -- Its end was delivered first.
    known.is_counted = true
    return count(known)
  end
  if known.is_open and (at <= known.last or starts_at == known.delivered_start) then
    known.start = math.min(known.start, at)
    known.last = math.max(known.last, delivered_at)
    known.delivered_at = delivered_at
    return 'ongoing'
  end
  if not known.is_open and at < known.last then
    if delivered_at <= known.delivered_at + PEER then
      return 'stale'
    end
    known.is_open, known.last, known.delivered_at = true, delivered_at, delivered_at
    return 'ongoing'
  end
  local begun = begin_episode(alert)
  if known.is_interrupted and known.is_counted and at <= known.last + PEER then
    begun.start = known.start
    change.episode = begun
    return 'ongoing'
  end
  return count(begun)
end

-- Decides about an alert that has ended. Returns the verdict.
local function decide_ended(k, stats, alert, known, state, change)
  if not known then
    local verdict = 'resolved'
    local episode = begin_episode(alert)
    episode.is_counted = policy.counts_missed
    if policy.counts_missed then
      local counted, counted_start = count_episode(k, stats, alert, alert.start, state)
      if counted == 'count' then
        verdict, change.counted_start = counted, counted_start
      end
    end
    put_episode(k, alert, episode, state, change)
    return verdict
  end
  if alert.delivered_at < known.delivered_at or alert.ends_at < known.start then
    return 'stale'
  end
  known.last, known.delivered_at, known.is_open = alert.ends_at, alert.delivered_at, false
  known.is_interrupted = alert.is_interrupted
  change.episode = known
  return 'resolved'
end

-- Decides about an alert. Returns the verdict ("count", "ongoing", "same_incident", "resolved" or
-- "stale") and the change, which `change_incidents` writes.
local function decide(k, stats, alert)
  local texts = call('HMGET', KEYS[k + INCIDENTS], alert.fingerprint, STATE)
  local counted_start, overflow_until = string.match(texts[2] or '0 0', '^(%d+) (%d+)$')
  local state = { counted_start = tonumber(counted_start),
    overflow_until = tonumber(overflow_until) }
  local known = texts[1] and unpack_episode(texts[1])
  if known then
    -- Times that another instance applied with a clock that is ahead must not make the next
    -- deliveries look older.
    known.start, known.last = math.min(known.start, policy.now), math.min(known.last, policy.now)
    known.delivered_at = math.min(known.delivered_at, policy.now)
  end
  local change = { state = state, before = texts[1] }
  local decide_alert = alert.ends_at and decide_ended or decide_firing
  local verdict = decide_alert(k, stats, alert, known, state, change)
  if policy.unit == 'delivery' and not alert.ends_at then
    verdict = 'count'
  end
  change.text = change.episode and pack_episode(change.episode)
  if change.text == change.before then
    change.episode = nil
  end
  change.is_empty = not (change.episode or change.overflow_until)
  return verdict, change
end

-- The keys whose TTLs this call has renewed.
local renewed = {}

-- Writes the change of an alert. `is_counted` says that the alert was counted.
local function change_incidents(k, alert, change, is_counted, kept_seconds)
  local name, state = KEYS[k + INCIDENTS], change.state
  local episodes = all_episodes[name]
  if change.forgotten then
    call('HDEL', name, change.forgotten)
    episodes.by_fingerprint[change.forgotten] = nil
    episodes.count = episodes.count - 1
  end
  if change.episode then
    call('HSET', name, alert.fingerprint, change.text)
    if episodes then
      if not episodes.by_fingerprint[alert.fingerprint] then
        episodes.count = episodes.count + 1
      end
      episodes.by_fingerprint[alert.fingerprint] = change.episode
      if episodes.ended and not change.episode.is_open then
        list_ended(episodes, alert.fingerprint, change.episode)
      end
    end
  end
  local counted_start = is_counted and change.counted_start or state.counted_start
  local overflow_until = change.overflow_until or state.overflow_until
  if counted_start ~= state.counted_start or overflow_until ~= state.overflow_until then
    call('HSET', name, STATE, string.format('%.0f %.0f', counted_start, overflow_until))
  end
  if not renewed[name] then
    call('EXPIRE', name, kept_seconds)
    renewed[name] = true
  end
end

-- Returns the alerts that fire at a time as "<number> <first start>", or '' if there are none.
local function firing_of(k, now)
  local number, since = 0, math.huge
  for _, episode in pairs(episodes_of(k).by_fingerprint) do
    if fires(episode, now) then
      number, since = number + 1, math.min(since, episode.start)
    end
  end
  return number > 0 and string.format('%d %.0f', number, since) or ''
end
