package cachedpg

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/internal/redact"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Config says how results are cached. The zero value is the documented
// default of every field, so Config{} caches in this process's memory.
type Config struct {
	// Store is where entries live: "memory" (default) for this process's
	// memory, "off" to pass everything through to PostgreSQL, or the URL of a
	// Redis that all processes share: redis://, rediss:// (TLS),
	// redis+sentinel:// or redis+cluster://, as package store/redis reads it.
	// Every process that writes to the database must name the same one.
	// DSN key cache_store.
	Store string

	// Mode is "read-write" (default); "write-only": what this process writes is
	// marked in the shared store, so that others may cache, and its own queries all
	// go to PostgreSQL; or "off", which is "write-only" where Store names a Redis and
	// else as if Store were "off". DSN key cache_mode.
	Mode string

	// Consistency is "strict" (default): nobody reads an older value once a
	// commit has returned or its value was read. Or "eventual": a commit marks
	// nothing beforehand and invalidates afterwards, which saves a write its
	// round trips; others may read the old value until then, and until the TTL
	// if the process dies in between. DSN key cache_consistency.
	Consistency string

	// Admission is "auto" (default): what costs more to look up and to store than it
	// saves is not looked up, but for samples that show when it would gain again; or
	// "all": whatever can be cached is. DSN key cache_admission.
	Admission string

	// OnStoreDown is what a write does that cannot mark what it changes in a
	// shared store: "commit" (default) waits once until nobody's lease on old
	// results stands, and commits; "fail" rolls back with an error. DSN key
	// cache_on_store_down.
	OnStoreDown string

	// Encryption is the keys that entries in a shared store are encrypted with,
	// AES-GCM: "id:base64,…", or "file:" and the path of a file with one a
	// line. The first encrypts, all decrypt. Default: no encryption.
	// DSN key cache_encryption.
	Encryption string

	// TTL is the longest time an entry is used, a last resort beside
	// invalidation; each entry gets up to a tenth less, at random, so that
	// entries filled together do not expire together. Default one hour.
	// DSN key cache_ttl, as time.ParseDuration reads it.
	TTL time.Duration

	// MaxEntry is the size in bytes above which a result passes through
	// without being stored or buffered whole. Default 1 MiB.
	// DSN key cache_max_entry, with an optional suffix KiB, MiB or GiB.
	MaxEntry int64

	// Memory is the size in bytes to which the memory store is bounded.
	// Default 64 MiB. Every sql.DB of a process that is connected to the same
	// database shares one store; the largest Memory counts. DSN key cache_memory.
	Memory int64

	// External is how changes by those who do not use the driver, or another
	// store, are noticed: "off" (default); "wal": PostgreSQL's write-ahead log is
	// followed, and what that needs of PostgreSQL is in docs/wal-feed.md,
	// WALSetupSQL makes it; or "events": the application sees to it that Apply, or
	// a consumer such as that of docs/kafka.md, hears of every commit of another
	// store. With "events" nothing is withheld because others write, and what is
	// read is as late as the events are.
	// Every process that shares a store must have the same. DSN key cache_external.
	External string

	// Outbox is when a commit writes what it invalidates into the table that
	// "cachedpg setup" makes, for "cachedpg relay" to deliver: "auto" (default)
	// when a shared store cannot be reached and the table is there, "always", or
	// "off". DSN key cache_outbox.
	Outbox string

	// RefillMax bounds the SELECTs that one commit runs to refill entries of
	// relations with strategy "write-through". Default 16. DSN key cache_refill_max.
	RefillMax int64

	// QueueMax is the number of writes queued by strategy "write-behind" above
	// which a write waits until some are applied. Default 10,000.
	// DSN key cache_queue_max.
	QueueMax int64

	// MaxConns bounds the connections to PostgreSQL that callers have, so that
	// sql.DB.SetMaxOpenConns need not, and hits never wait for one that is busy. See
	// docs/max-conns.md. Default 0: each connection of the sql.DB may have one to
	// PostgreSQL. DSN key cache_max_conns.
	MaxConns int64

	// OnDeadLetter, if not nil, is called for each queued write that PostgreSQL
	// has refused when this process applied it, after that is recorded: at most
	// once. Meanwhile nothing is applied. It must not use the sql.DB.
	OnDeadLetter func(DeadLetter)

	// Policies are exceptions per relation. DSN key cache_policy:
	// "audit_log:off,public.countries:cache-aside:24h", or what is cached at all:
	// "default:off,countries:cache-aside". Every process that uses the same store
	// must have the same ones. Those without effect are in Stats.Policies.
	Policies []Policy

	patterns []relationPattern // of Policies; withDefaults reads them
}

// Policy is what applies to the results that read one relation. A result that
// reads several relations is cached if every policy allows it, for the
// shortest of their TTLs.
type Policy struct {
	// Relation is a table or materialised view, as PostgreSQL writes its name:
	// folded to lower case but in double quotes, with or without its schema;
	// without one it means every schema. Outside of quotes * stands for anything:
	// audit_*, public.*, *. And default is what no other policy names.
	//
	// One policy counts for a relation, the most specific: a name before a pattern,
	// the longer pattern before the shorter, with a schema before without, default last,
	// of two alike the first. A view has the policies of its tables, and a partition
	// that is not named that of its table. PostgreSQL's own catalogs are named by
	// their names, or as pg_catalog.*.
	Relation string

	// Strategy is
	//
	//   - "cache-aside" (default): a write invalidates, the next read fills.
	//   - "write-through": the writer also refills what it invalidated and was
	//     cached, after COMMIT and before its call returns.
	//   - "write-behind": a write of rows by key returns when a shared store has
	//     queued it, and is applied to PostgreSQL later, in order and once.
	//   - "ttl": writes do not invalidate; results are used until they are TTL old.
	//   - "off": never cached.
	Strategy string

	// TTL replaces Config.TTL; zero keeps it. Strategy "ttl" needs one.
	TTL time.Duration
}

const (
	defaultTTL      = time.Hour
	defaultMaxEntry = 1 << 20
	defaultMemory   = 64 << 20

	modeReadWrite = "read-write"
	modeWriteOnly = "write-only"
	modeOff       = "off"

	storeMemory = "memory"
	storeOff    = "off"

	consistencyStrict   = "strict"
	consistencyEventual = "eventual"

	admissionAuto = "auto"
	admissionAll  = "all"

	onStoreDownCommit = "commit"
	onStoreDownFail   = "fail"

	externalOff    = "off"
	externalWAL    = "wal"
	externalEvents = "events"

	outboxAuto   = "auto"
	outboxAlways = "always"
	outboxOff    = "off"

	defaultRefillMax = 16
	defaultQueueMax  = 10000

	strategyCacheAside   = "cache-aside"
	strategyWriteThrough = "write-through"
	strategyWriteBehind  = "write-behind"
	strategyTTL          = "ttl"
	strategyOff          = "off"
)

var strategies = []string{strategyCacheAside, strategyWriteThrough, strategyWriteBehind, strategyTTL, strategyOff}

// withDefaults returns c with its zero values replaced, or every problem joined.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("cachedpg: "+format, args...))
	}
	if c.Store == "" {
		c.Store = storeMemory
	}
	if c.Store == storeMemory && c.Mode == modeOff {
		c.Store = storeOff
	}
	target, err := c.target()
	if err != nil {
		problems = append(problems, err)
	}
	oneOf := func(key string, value *string, choices ...string) {
		switch {
		case *value == "":
			*value = choices[0]
		case !slices.Contains(choices, *value):
			bad("%s=%s: want %s", key, redact.Value(*value), strings.Join(choices, " or "))
		}
	}
	oneOf("cache_mode", &c.Mode, modeReadWrite, modeWriteOnly, modeOff)
	oneOf("cache_consistency", &c.Consistency, consistencyStrict, consistencyEventual)
	oneOf("cache_admission", &c.Admission, admissionAuto, admissionAll)
	oneOf("cache_on_store_down", &c.OnStoreDown, onStoreDownCommit, onStoreDownFail)
	oneOf("cache_external", &c.External, externalOff, externalWAL, externalEvents)
	oneOf("cache_outbox", &c.Outbox, outboxAuto, outboxAlways, outboxOff)
	positive := func(key string, v, standard int64) int64 {
		switch {
		case v < 0:
			bad("%s=%d: must be positive", key, v)
		case v == 0:
			return standard
		}
		return v
	}
	if c.TTL < 0 {
		bad("cache_ttl=%v: must be positive", c.TTL)
	} else if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	c.MaxEntry = positive("cache_max_entry", c.MaxEntry, defaultMaxEntry)
	c.Memory = positive("cache_memory", c.Memory, defaultMemory)
	c.RefillMax = positive("cache_refill_max", c.RefillMax, defaultRefillMax)
	c.QueueMax = positive("cache_queue_max", c.QueueMax, defaultQueueMax)
	c.MaxConns = positive("cache_max_conns", c.MaxConns, 0)
	shared := c.Store != storeMemory && c.Store != storeOff
	if c.Mode == modeWriteOnly && !shared {
		bad("cache_mode=write-only: cache_store=%s is not shared, so there is nothing to mark in; name a Redis", c.Store)
	}
	if c.Outbox == outboxAlways && !shared {
		bad("cache_outbox=always: cache_store=%s is not shared, so nobody is to be told; name a Redis", c.Store)
	}
	if c.External != "" && c.External != externalOff && c.Store == storeOff {
		bad("cache_external=%s: cache_store=off has nothing to invalidate", c.External)
	}
	if c.MaxEntry > c.Memory {
		bad("cache_max_entry=%d: larger than cache_memory=%d", c.MaxEntry, c.Memory)
	}
	policies := make([]Policy, len(c.Policies))
	c.patterns = make([]relationPattern, len(c.Policies))
	seen := make(map[string]bool)
	for i, p := range c.Policies {
		pattern, err := parsePattern(p.Relation)
		switch key := pattern.key(); {
		case p.Relation == "":
			bad("cache_policy: a policy without a relation")
		case err != nil:
			bad("cache_policy: %s: %w", p.Relation, err)
		case seen[key]:
			bad("cache_policy: %s is named twice", p.Relation)
		default:
			seen[key] = true
		}
		c.patterns[i] = pattern
		switch {
		case p.Strategy == strategyWriteBehind && err == nil && pattern.wild():
			bad("cache_policy: %s: strategy %q is for relations that are named: their writes wait, and may be refused when nobody waits for them any more", p.Relation, p.Strategy)
		case p.Strategy == "":
			p.Strategy = strategyCacheAside
		case !slices.Contains(strategies, p.Strategy):
			bad("cache_policy: %s: unknown strategy %q; want %s", p.Relation, redact.Value(p.Strategy), strings.Join(strategies, ", "))
		case p.Strategy == strategyWriteBehind && !shared:
			bad("cache_policy: %s: strategy %q queues writes in a Redis, and cache_store=%s is none", p.Relation, p.Strategy, c.Store)
		case p.Strategy == strategyWriteBehind && target != nil && target.ClusterOptions != nil:
			bad("cache_policy: %s: strategy %q needs one Redis, or one with Sentinels; a Cluster cannot queue a write and invalidate in one step", p.Relation, p.Strategy)
		case p.Strategy == strategyTTL && p.TTL == 0:
			bad("cache_policy: %s: strategy %q needs a ttl, such as %s:ttl:30s", p.Relation, p.Strategy, p.Relation)
		}
		if p.TTL < 0 {
			bad("cache_policy: %s: ttl %v must be positive", p.Relation, p.TTL)
		}
		if p.Strategy == strategyOff && p.TTL != 0 {
			bad("cache_policy: %s: a ttl contradicts strategy %q", p.Relation, strategyOff)
		}
		policies[i] = p
	}
	c.Policies = policies
	return c, errors.Join(problems...)
}

// target is the shared store that c names, nil if it names none. It reads the
// encryption keys and does no other I/O.
func (c Config) target() (*redis.Target, error) {
	if c.Store == storeMemory || c.Store == storeOff {
		if c.Encryption != "" {
			return nil, fmt.Errorf("cachedpg: cache_encryption: cache_store=%s encrypts nothing", c.Store)
		}
		return nil, nil
	}
	if !strings.Contains(c.Store, "://") { // a URL may hold a password
		return nil, fmt.Errorf("cachedpg: cache_store: unknown store; want %q, %q or the URL of a Redis", storeMemory, storeOff)
	}
	target, err := redis.ParseURL(c.Store)
	if err != nil {
		return nil, err
	}
	if c.Encryption == "" {
		return target, nil
	}
	var keys []redis.Key
	if path, ok := strings.CutPrefix(c.Encryption, "file:"); ok {
		keys, err = redis.LoadKeys(path)
	} else {
		keys, err = redis.ParseKeys(c.Encryption)
	}
	if err == nil {
		target.Sealer, err = redis.NewSealer(keys)
	}
	if err != nil {
		return nil, fmt.Errorf("cachedpg: cache_encryption: %w", err)
	}
	return target, nil
}

// ParseConfig takes the cache_* keys out of a DSN, URL or keyword form, and
// returns what is left for pgx, byte for byte, beside them. An unknown or
// malformed cache_* key is an error that names the key and never the rest of the DSN.
func ParseConfig(dsn string) (pgDSN string, config Config, err error) {
	var keys []setting
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		pgDSN, keys, err = splitURL(dsn)
	} else {
		pgDSN, keys = splitKeywords(dsn)
	}
	if err != nil {
		return "", Config{}, err
	}
	var problems []error
	seen := make(map[string]bool)
	for _, k := range keys {
		if seen[k.key] {
			problems = append(problems, fmt.Errorf("cachedpg: %s: given twice", k.key))
			continue
		}
		seen[k.key] = true
		if err := config.set(k.key, k.value); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) == 0 {
		_, err := config.withDefaults()
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return "", Config{}, err
	}
	return pgDSN, config, nil
}

// set applies one DSN key.
func (c *Config) set(key, value string) (err error) {
	fail := func(err error) error { return fmt.Errorf("cachedpg: %s=%s: %w", key, redact.Value(value), err) }
	switch key {
	case "cache_store":
		if c.Store = value; value == "" {
			return fmt.Errorf("cachedpg: %s: must not be empty", key)
		}
	case "cache_ttl":
		if c.TTL, err = parseDuration(value); err != nil {
			return fail(err)
		}
	case "cache_max_entry":
		if c.MaxEntry, err = parseBytes(value); err != nil {
			return fail(err)
		}
	case "cache_memory":
		if c.Memory, err = parseBytes(value); err != nil {
			return fail(err)
		}
	case "cache_mode":
		c.Mode = value
	case "cache_consistency":
		c.Consistency = value
	case "cache_on_store_down":
		c.OnStoreDown = value
	case "cache_admission":
		c.Admission = value
	case "cache_encryption":
		c.Encryption = value
	case "cache_external":
		c.External = value
	case "cache_outbox":
		c.Outbox = value
	case "cache_refill_max":
		if c.RefillMax, err = parseCount(value); err != nil {
			return fail(err)
		}
	case "cache_queue_max":
		if c.QueueMax, err = parseCount(value); err != nil {
			return fail(err)
		}
	case "cache_max_conns":
		if c.MaxConns, err = parseCount(value); err != nil && value != "0" {
			return fail(err)
		}
	case "cache_policy":
		if c.Policies, err = parsePolicies(value); err != nil {
			return fail(err)
		}
	default:
		return fmt.Errorf("cachedpg: %s: unknown key; want cache_store, cache_mode, cache_consistency, cache_admission, cache_on_store_down, cache_encryption,"+
			" cache_ttl, cache_max_entry, cache_memory, cache_external, cache_outbox, cache_refill_max, cache_queue_max, cache_max_conns or cache_policy", key)
	}
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, errors.New("not a duration such as 90s or 1h")
	case d <= 0:
		return 0, errors.New("must be positive")
	}
	return d, nil
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
		return 0, errors.New("not a number")
	case n <= 0:
		return 0, errors.New("must be positive")
	}
	return n, nil
}

// parseBytes reads a size: a number of bytes, or one with KiB, MiB or GiB behind it.
func parseBytes(s string) (int64, error) {
	unit := int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, factor
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	switch {
	case err != nil:
		return 0, errors.New("not a size such as 1048576 or 64MiB")
	case n <= 0:
		return 0, errors.New("must be positive")
	case n > (1<<62)/unit:
		return 0, errors.New("too large")
	}
	return n * unit, nil
}

// parsePolicies reads relation:strategy[:ttl],…
func parsePolicies(s string) ([]Policy, error) {
	var policies []Policy
	for _, item := range splitUnquoted(s, ',') {
		parts := splitUnquoted(strings.TrimSpace(item), ':')
		if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
			return nil, errors.New("want relation:strategy[:ttl], …")
		}
		p := Policy{Relation: parts[0], Strategy: parts[1]}
		if len(parts) == 3 {
			var err error
			if p.TTL, err = parseDuration(parts[2]); err != nil {
				return nil, fmt.Errorf("%s: %w", p.Relation, err)
			}
		}
		policies = append(policies, p)
	}
	return policies, nil
}
