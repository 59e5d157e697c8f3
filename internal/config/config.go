// Package config is how results are cached: the settings of cachedpg.Config, the keys of a DSN that they are read
// from, and which policy a relation has. It is checked once and does no I/O but reading the file of encryption keys.
package config

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

// Config is cachedpg.Config, which says what each field means.
type Config struct {
	Store       string
	Mode        string
	Consistency string
	Admission   string
	OnStoreDown string
	Encryption  string
	TTL         time.Duration
	MaxEntry    int64
	Memory      int64
	External    string
	Outbox      string
	RefillMax   int64
	QueueMax    int64
	MaxConns    int64
	Policies    []Policy

	patterns []relationPattern // of Policies; WithDefaults reads them
}

// Policy is cachedpg.Policy.
type Policy struct {
	Relation string
	Strategy string
	TTL      time.Duration
}

const (
	defaultTTL      = time.Hour
	defaultMaxEntry = 1 << 20
	defaultMemory   = 64 << 20

	ModeReadWrite = "read-write"
	ModeWriteOnly = "write-only"
	ModeOff       = "off"

	StoreMemory = "memory"
	StoreOff    = "off"

	ConsistencyStrict   = "strict"
	ConsistencyEventual = "eventual"

	AdmissionAuto = "auto"
	AdmissionAll  = "all"

	OnStoreDownCommit = "commit"
	OnStoreDownFail   = "fail"

	ExternalOff    = "off"
	ExternalWAL    = "wal"
	ExternalEvents = "events"

	OutboxAuto   = "auto"
	OutboxAlways = "always"
	OutboxOff    = "off"

	defaultRefillMax = 16
	defaultQueueMax  = 10000

	CacheAside   = "cache-aside"
	WriteThrough = "write-through"
	WriteBehind  = "write-behind"
	TTLStrategy  = "ttl"
	StrategyOff  = "off"
)

var strategies = []string{CacheAside, WriteThrough, WriteBehind, TTLStrategy, StrategyOff}

// WithDefaults returns c with its zero values replaced, or every problem joined.
func (c Config) WithDefaults() (Config, error) {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("cachedpg: "+format, args...))
	}
	if c.Store == "" {
		c.Store = StoreMemory
	}
	if c.Store == StoreMemory && c.Mode == ModeOff {
		c.Store = StoreOff
	}
	target, err := c.Target()
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
	oneOf("cache_mode", &c.Mode, ModeReadWrite, ModeWriteOnly, ModeOff)
	oneOf("cache_consistency", &c.Consistency, ConsistencyStrict, ConsistencyEventual)
	oneOf("cache_admission", &c.Admission, AdmissionAuto, AdmissionAll)
	oneOf("cache_on_store_down", &c.OnStoreDown, OnStoreDownCommit, OnStoreDownFail)
	oneOf("cache_external", &c.External, ExternalOff, ExternalWAL, ExternalEvents)
	oneOf("cache_outbox", &c.Outbox, OutboxAuto, OutboxAlways, OutboxOff)
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
	shared := c.Store != StoreMemory && c.Store != StoreOff
	if c.Mode == ModeWriteOnly && !shared {
		bad("cache_mode=write-only: cache_store=%s is not shared, so there is nothing to mark in; name a Redis", c.Store)
	}
	if c.Outbox == OutboxAlways && !shared {
		bad("cache_outbox=always: cache_store=%s is not shared, so nobody is to be told; name a Redis", c.Store)
	}
	if c.External != "" && c.External != ExternalOff && c.Store == StoreOff {
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
		case p.Strategy == WriteBehind && err == nil && pattern.wild():
			bad("cache_policy: %s: strategy %q is for relations that are named: their writes wait, and may be refused when nobody waits for them any more", p.Relation, p.Strategy)
		case p.Strategy == "":
			p.Strategy = CacheAside
		case !slices.Contains(strategies, p.Strategy):
			bad("cache_policy: %s: unknown strategy %q; want %s", p.Relation, redact.Value(p.Strategy), strings.Join(strategies, ", "))
		case p.Strategy == WriteBehind && !shared:
			bad("cache_policy: %s: strategy %q queues writes in a Redis, and cache_store=%s is none", p.Relation, p.Strategy, c.Store)
		case p.Strategy == WriteBehind && target != nil && target.ClusterOptions != nil:
			bad("cache_policy: %s: strategy %q needs one Redis, or one with Sentinels; a Cluster cannot queue a write and invalidate in one step", p.Relation, p.Strategy)
		case p.Strategy == TTLStrategy && p.TTL == 0:
			bad("cache_policy: %s: strategy %q needs a ttl, such as %s:ttl:30s", p.Relation, p.Strategy, p.Relation)
		}
		if p.TTL < 0 {
			bad("cache_policy: %s: ttl %v must be positive", p.Relation, p.TTL)
		}
		if p.Strategy == StrategyOff && p.TTL != 0 {
			bad("cache_policy: %s: a ttl contradicts strategy %q", p.Relation, StrategyOff)
		}
		policies[i] = p
	}
	c.Policies = policies
	return c, errors.Join(problems...)
}

// Target is the shared store that c names, nil if it names none. It reads the
// encryption keys and does no other I/O.
func (c Config) Target() (*redis.Target, error) {
	if c.Store == StoreMemory || c.Store == StoreOff {
		if c.Encryption != "" {
			return nil, fmt.Errorf("cachedpg: cache_encryption: cache_store=%s encrypts nothing", c.Store)
		}
		return nil, nil
	}
	if !strings.Contains(c.Store, "://") { // a URL may hold a password
		return nil, fmt.Errorf("cachedpg: cache_store: unknown store; want %q, %q or the URL of a Redis", StoreMemory, StoreOff)
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

// Parse takes the cache_* keys out of a DSN, see cachedpg.ParseConfig.
func Parse(dsn string) (pgDSN string, config Config, err error) {
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
		_, err := config.WithDefaults()
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

// String returns the configuration without what may be secret in it: the user and
// the password of a Redis, and the keys.
func (c Config) String() string {
	shown := c.shown()
	return fmt.Sprintf("{Store:%s Consistency:%s Admission:%s OnStoreDown:%s Encryption:%s TTL:%v MaxEntry:%d Memory:%d External:%s Outbox:%s RefillMax:%d QueueMax:%d MaxConns:%d Policies:%+v}",
		shown.Store, shown.Consistency, shown.Admission, shown.OnStoreDown, shown.Encryption, c.TTL, c.MaxEntry, c.Memory, shown.External, shown.Outbox, c.RefillMax, c.QueueMax, c.MaxConns, c.Policies)
}

func (c Config) shown() Config {
	if c.Store != "" && c.Store != StoreMemory && c.Store != StoreOff {
		c.Store = shownStore(c.Store)
	}
	if c.Encryption != "" {
		c.Encryption = "…"
	}
	for _, value := range []*string{&c.Consistency, &c.Admission, &c.OnStoreDown, &c.External, &c.Outbox} {
		*value = redact.Value(*value)
	}
	return c
}

func shownStore(url string) string {
	target, err := redis.ParseURL(url)
	if err != nil {
		return "…"
	}
	return target.String()
}
