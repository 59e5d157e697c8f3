package cachedpg

import (
	"log/slog"
	"time"

	settings "github.com/cachedpg/cachedpg/internal/config"
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

// ParseConfig takes the cache_* keys out of a DSN, URL or keyword form, and
// returns what is left for pgx, byte for byte, beside them. An unknown or
// malformed cache_* key is an error that names the key and never the rest of the DSN.
func ParseConfig(dsn string) (pgDSN string, config Config, err error) {
	pgDSN, parsed, err := settings.Parse(dsn)
	return pgDSN, configOf(parsed), err
}

// core is c as the rest of the driver takes it.
func (c Config) core() settings.Config {
	policies := make([]settings.Policy, len(c.Policies))
	for i, p := range c.Policies {
		policies[i] = settings.Policy(p)
	}
	return settings.Config{Store: c.Store, Mode: c.Mode, Consistency: c.Consistency, Admission: c.Admission, OnStoreDown: c.OnStoreDown,
		Encryption: c.Encryption, TTL: c.TTL, MaxEntry: c.MaxEntry, Memory: c.Memory, External: c.External, Outbox: c.Outbox,
		RefillMax: c.RefillMax, QueueMax: c.QueueMax, MaxConns: c.MaxConns, Policies: policies}
}

func configOf(c settings.Config) Config {
	var policies []Policy
	for _, p := range c.Policies {
		policies = append(policies, Policy(p))
	}
	return Config{Store: c.Store, Mode: c.Mode, Consistency: c.Consistency, Admission: c.Admission, OnStoreDown: c.OnStoreDown,
		Encryption: c.Encryption, TTL: c.TTL, MaxEntry: c.MaxEntry, Memory: c.Memory, External: c.External, Outbox: c.Outbox,
		RefillMax: c.RefillMax, QueueMax: c.QueueMax, MaxConns: c.MaxConns, Policies: policies}
}

// String returns the configuration without what may be secret in it: the user and
// the password of a Redis, and the keys.
func (c Config) String() string { return c.core().String() }

// GoString returns what %#v prints, without what may be secret.
func (c Config) GoString() string { return "cachedpg.Config" + c.String() }

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
