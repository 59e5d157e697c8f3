package keying

// Reason says why a result was not looked up in the cache. Its String is a
// stable name, used in stats, logs and explain.
type Reason uint8

// The reasons. Those of the first group a Plan gives for a text, whatever its
// values; those of the second Key gives for values; those of the third belong
// to the session, the store and the configuration, and are given by the driver.
const (
	NoReason Reason = iota

	NotRead
	SeveralStatements
	Unparsed
	RowLock
	Sample
	UnknownRelation
	SystemCatalog
	TemporaryTable
	UnloggedTable
	ForeignTable
	SequenceRead
	RowSecurity
	UnreadableView
	SystemColumn
	UnknownFunction
	VolatileFunction
	StableFunction
	UserFunction
	WritingFunction
	SessionFunction
	UnknownOperator
	UserOperator
	UnknownType
	CatalogType
	ClockType
	UserType
	UserCast
	ClockKeyword
	ClockCast
	SessionKeyword

	ClockInput
	Argument
	NamedArgument

	CatalogUnavailable
	Unwatched
	Warming
	InTransactionAfterWrite
	Isolation
	FailedTransaction
	SessionUnknown
	TemporaryObjects
	HotStandby
	StoreError
	StoreDown
	FeedDown
	OtherWriter
	OtherStore
	NotFollowed
	DirtyTag
	HintBypass
	ContextBypass
	PolicyOff
	CacheOff
	WriteOnly
	TooLarge
	NoGain
	ResultFormats
	Rewriter

	reasonCount
)

// reasons holds name, words and remedy of each Reason.
var reasons = [reasonCount]struct{ name, words, remedy string }{
	NoReason: {"none", "the result may be cached", ""},

	NotRead: {"not-a-read", "the statement is not a plain SELECT, so it always runs",
		"Nothing to do: writes invalidate what they change."},
	SeveralStatements: {"several-statements", "the text has more than one statement",
		"Send each statement by itself."},
	Unparsed: {"unparsed", "the syntax is not understood, so the statement is taken for a write of anything",
		"Check the statement against the PostgreSQL version that the parser knows."},
	RowLock: {"row-lock", "FOR UPDATE or FOR SHARE locks rows, which only PostgreSQL can do",
		"Leave the locking clause out where the lock is not needed."},
	Sample: {"tablesample", "TABLESAMPLE gives other rows each time",
		"Sample in the application, or accept that the query runs each time."},
	UnknownRelation: {"unknown-relation", "a relation is not in the loaded schema",
		"Check the search_path; a table made a moment ago is found after the schema is loaded again."},
	SystemCatalog: {"system-catalog", "it reads pg_catalog or information_schema, which change without a trace",
		"Nothing to do: catalog queries always run."},
	TemporaryTable: {"temporary-table", "a temporary table belongs to one session",
		"Use a permanent table if others should share the result."},
	UnloggedTable: {"unlogged-table", "an unlogged table is emptied by crash recovery, without a write that can be seen",
		"ALTER TABLE … SET LOGGED."},
	ForeignTable: {"foreign-table", "a foreign table changes where nobody here can see it",
		"Copy it into a table or a materialised view."},
	SequenceRead: {"sequence", "a sequence changes outside transactions",
		"Nothing to do: sequences are always read from PostgreSQL."},
	RowSecurity: {"row-security", "row-level security decides per session which rows are seen",
		"Read through a view or a function that does not depend on policies, or leave it uncached."},
	UnreadableView: {"unreadable-view", "the definition of a view could not be taken apart down to its tables",
		"Query the view's tables instead, or load the schema again if the view was just changed."},
	SystemColumn: {"system-column", "ctid, xmin, xmax, cmin and cmax change without the row's values changing",
		"Use a version column of your own."},
	UnknownFunction: {"unknown-function", "a function is not in the loaded schema",
		"Check name, number of arguments and search_path."},
	VolatileFunction: {"volatile-function", "a volatile function may give something else at each call",
		"Compute the value in the application and pass it as an argument."},
	StableFunction: {"stable-function", "a built-in function depends on the clock, the session or the catalog",
		"Pass the value as an argument, a time rounded so that it stays the same for a while: time.Now().Truncate(time.Minute)."},
	UserFunction: {"user-function", "a function that is not declared IMMUTABLE may depend on anything",
		"Declare one of your own IMMUTABLE if it depends on nothing but its arguments, or write its query out; one of an extension leave as its makers declared it."},
	WritingFunction: {"writing-function", "a volatile function may write, so the call is taken for a write of anything",
		"Declare it STABLE or IMMUTABLE if it does not write."},
	SessionFunction: {"session-function", "the function changes the session's settings",
		"Set parameters when connecting."},
	UnknownOperator: {"unknown-operator", "an operator is not in the loaded schema",
		"Check the search_path; named parameters (@id) need pgx.NamedArgs as the argument."},
	UserOperator: {"user-operator", "the function of an operator is not declared IMMUTABLE",
		"Declare one of your own IMMUTABLE if it depends on nothing but its operands; one of an extension leave as its makers declared it, and the query uncached."},
	UnknownType: {"unknown-type", "a type is not in the loaded schema",
		"Check name and search_path."},
	CatalogType: {"catalog-type", "regclass and its like are looked up in the catalog",
		"Cast to oid, or leave it uncached."},
	ClockType: {"clock-type", "conversions of timetz may depend on today's date",
		"Use timestamptz, as PostgreSQL's manual advises."},
	UserType: {"user-type", "a type calls a user-defined function that is not declared IMMUTABLE",
		"Declare those of a type or of a domain's CHECK of your own IMMUTABLE; those of an extension leave as its makers declared them."},
	UserCast: {"user-cast", "a user-defined cast that may apply calls a function that is not declared IMMUTABLE",
		"Declare one of your own IMMUTABLE; one of an extension leave as its makers declared it."},
	ClockKeyword: {"clock-keyword", "current_date, current_timestamp and their like read the clock",
		"Pass the time as an argument, rounded so that it stays the same for a while: time.Now().Truncate(time.Minute)."},
	ClockCast: {"clock-cast", "a text from the database may be read as a date or time, and it could say now or today",
		"Store times in columns of their type, or use to_date and to_timestamp."},
	SessionKeyword: {"session-keyword", "a construct of SQL depends on more of the session than the key holds: current_schema, XML",
		"Name the schema; build XML in the application."},

	ClockInput: {"clock-input", "a value could be read as a date that depends on the clock: now, today, tomorrow or yesterday",
		"Pass dates as time.Time, or written out."},
	Argument: {"argument", "an argument has no canonical encoding: a struct, map, function or channel, or a Valuer that failed",
		"Pass a basic type, time.Time, a slice of them, or a type that implements driver.Valuer."},
	NamedArgument: {"named-argument", "sql.Named arguments are not PostgreSQL's",
		"Use $1, or pgx.NamedArgs."},

	CatalogUnavailable: {"catalog-unavailable", "the schema could not be loaded",
		"Ping and Stats.Problems say what PostgreSQL answered, or what the load waits for; grant what is missing."},
	Unwatched: {"unwatched", "PostgreSQL has not answered lately whether anybody has changed the schema",
		"Stats.Problems says what went wrong. The driver needs a connection of its own beside the pool: max_connections, the role's CONNECTION LIMIT, the network."},
	Warming: {"warming", "transactions that PostgreSQL was running when the cache began, or lost its memory, may still commit unseen",
		"Nothing to do: caching begins when they are over."},
	InTransactionAfterWrite: {"transaction-wrote", "the transaction may see rows that it wrote itself",
		"Read before writing, or outside the transaction."},
	Isolation: {"isolation-level", "REPEATABLE READ and SERIALIZABLE read from one snapshot of their own",
		"Use READ COMMITTED where it is enough."},
	FailedTransaction: {"failed-transaction", "the transaction has failed; PostgreSQL refuses everything but ROLLBACK",
		"Roll back."},
	SessionUnknown: {"session-unknown", "what the session is set to is not known: PostgreSQL refused the question, or a SET or a function changed it in a way that the key does not hold",
		"Grant what Ping and Stats.Problems say is missing; else set parameters when connecting, or SET LOCAL in the transaction that needs them."},
	TemporaryObjects: {"temporary-objects", "a name in it may be that of a temporary object: one that goes with a temporary table, or any while the search_path names pg_temp or behind a pooler",
		"Drop the temporary objects, or use another connection for cached reads."},
	HotStandby: {"hot-standby", "a replica may lag behind what the cache knows",
		"Connect cached reads to the primary."},
	StoreError: {"store-error", "the store answered with an error",
		"Ping and Stats.Problems have it, such as a right that the Redis user lacks; the queries themselves are not affected."},
	StoreDown: {"store-down", "the shared store cannot be reached",
		"Stats.Problems says why: address, password, network; the queries themselves are not affected, and hits go on by themselves when it is back."},
	FeedDown: {"feed-down", "the write-ahead log is not followed, so changes by others would not be noticed",
		"Stats.Feed.Problem and Ping say what PostgreSQL lacks; while it starts, or after a gap, it passes by itself."},
	OtherWriter: {"other-writer", "a process that does not share this cache writes to the database, so its writes would not be noticed",
		"Name the same Redis in every process; Ping and Stats.Peers say what the other one is. It passes when that is gone."},
	OtherStore: {"other-store", "another sql.DB of this process has the same database in another store, where this one's writes are marked",
		"Name the same store in both; parameters of its URL that do not name a server may differ."},
	NotFollowed: {"not-followed", "no replica identity can serve a table, so the write-ahead log does not tell its changes",
		"Give it a primary key that is not DEFERRABLE; Ping and Stats.Feed.LeftOut name it."},
	DirtyTag: {"write-in-progress", "a write that touches the result is being committed",
		"Nothing to do: the result is cached again after the commit."},
	HintBypass: {"hint-bypass", "a comment in the statement asks for PostgreSQL",
		"Remove the hint."},
	ContextBypass: {"context-bypass", "the context asks for PostgreSQL",
		"Leave WithBypass out."},
	PolicyOff: {"policy-off", "the policy of a relation says off",
		"Change cache_policy."},
	CacheOff: {"cache-off", "the cache is turned off",
		"Set cache_store."},
	WriteOnly: {"write-only", "cache_mode says that this process marks its writes and reads nothing from the cache",
		"Set cache_mode=read-write when every process that writes marks its writes."},
	TooLarge: {"too-large", "the result is larger than cache_max_entry",
		"Select fewer rows or columns, or raise cache_max_entry."},
	NoGain: {"no-gain", "to look its results up and to store them has cost more than it saved",
		"Nothing to do: samples are taken, and it is looked up again when they are hits; cache_admission=all looks up everything."},
	ResultFormats: {"result-formats", "the call asks for result formats of its own",
		"Leave pgx.QueryResultFormats out."},
	Rewriter: {"rewriter", "a query rewriter failed or is not known",
		"Use pgx.NamedArgs or pgx.StrictNamedArgs."},
}

// String returns the stable name, such as "volatile-function".
func (r Reason) String() string {
	if r >= reasonCount {
		return "unknown"
	}
	return reasons[r].name
}

// Words says in one clause what the reason means.
func (r Reason) Words() string {
	if r >= reasonCount {
		return ""
	}
	return reasons[r].words
}

// Remedy says what a user can do about it; "" for NoReason.
func (r Reason) Remedy() string {
	if r >= reasonCount {
		return ""
	}
	return reasons[r].remedy
}

// Reasons returns all reasons but NoReason, in order.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := NoReason + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}
