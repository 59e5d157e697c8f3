package parser

// Kind classifies the top node of one SQL command.
type Kind uint8

const (
	// Opaque is a command that is not understood; it may do anything.
	Opaque Kind = iota
	Select      // SELECT, VALUES, TABLE; a read only if Statement.ReadOnly
	Insert
	Update
	Delete
	Merge
	Truncate
	CopyFrom
	CopyTo
	Refresh // REFRESH MATERIALIZED VIEW
	DDL     // CREATE, ALTER, DROP, GRANT, COMMENT, … : whatever changes the catalog
	Begin
	Commit // COMMIT, END (also AND CHAIN)
	Rollback
	Savepoint
	RollbackTo
	ReleaseSavepoint
	PrepareTransaction
	CommitPrepared
	RollbackPrepared
	SetTransaction // SET TRANSACTION, SET CONSTRAINTS
	Set            // SET, RESET, SET LOCAL, SET ROLE, SET SESSION AUTHORIZATION, SET SESSION CHARACTERISTICS
	Discard
	PrepareStatement // PREPARE name AS …
	Execute          // EXECUTE name: opaque, because the text is elsewhere
	Deallocate
	Explain // EXPLAIN without ANALYZE; with ANALYZE it has the facts of the statement that it runs
	Cursor  // DECLARE, with the facts of its query; FETCH, MOVE, CLOSE
	Notify  // LISTEN, UNLISTEN, NOTIFY
	Lock
	Do // with Statement.Body
	Call
	Show
	Remark      // COMMENT, CREATE ROLE, REINDEX, CREATE INDEX USING gin, …: changes of the catalog that no plan and no cached result depends on
	Maintenance // VACUUM, ANALYZE, CHECKPOINT, LOAD: no table content changes
	Empty       // a text without a command
)

// Statement holds the facts of one SQL command: what its text says, before any
// catalog is asked. It is immutable after Parse.
type Statement struct {
	Kind Kind

	// Reads are the relations mentioned for reading, in every query level,
	// CTE and sub-select, CTE names left out. A name may occur more than once.
	Reads []Relation

	// Writes are the targets of the command and of its data-modifying CTEs.
	Writes []Write

	// Carried are pairs of columns between which conditions are carried over.
	Carried []Carried

	// Functions, Operators and Types are everything called or cast to,
	// anywhere in the command.
	Functions []Function
	Operators []Name
	Types     []Name

	// Attributes are the names in relation.name and (value).name. Where the
	// value has no such column, PostgreSQL takes the name for a function and
	// calls it with the value: SELECT author.full_name runs full_name(author).
	Attributes []Attribute

	// Casts are the conversions of values: x::type, and the calls and attributes
	// that are one if their name is that of a type, date(x) and (x).date; also
	// x AT TIME ZONE zone, as one to timezone. Those of parameters and literals
	// alone are left out.
	Casts []Cast

	// Keywords are the SQL value keywords used (lower case: current_date,
	// localtime, current_user, session_user, …), and the constructs that are
	// neither function nor operator but may depend on settings, by their first
	// word: xmlelement, xmltable, json_object, is json, …
	Keywords []string

	// Bounded says of an Opaque command that it is one query or one change of
	// rows: it does not end a transaction, or begin one.
	Bounded bool

	Locks  bool // FOR UPDATE, NO KEY UPDATE, SHARE, KEY SHARE
	Sample bool // TABLESAMPLE
	Into   bool // SELECT … INTO, CREATE TABLE AS
	Local  bool // SET LOCAL
	Params int  // the highest $n

	// Defines says of DDL which relations it is about, nil if it is about more.
	Defines *Definition

	// Body is what a Do runs, nil if it is not understood.
	Body *Body

	// SettingName is the parameter that a Set command names ("" for RESET ALL
	// and the like), lower case.
	SettingName string

	// Default says of a Set command that the value is the default of the session,
	// which stands nowhere in the text: RESET, SET … TO DEFAULT.
	Default bool

	// Given says of a Set command that the value is in the text, of a Begin that it
	// says which kind of transaction.
	Given bool

	// Discards is what a Discard gives up: "all", "plans", "sequences" or "temp".
	Discards string

	// Plain says of a Select that an answer with a row proves, of every relation
	// that is not Nested, that a row was found that meets its Equal; where an
	// Equality has several values, it proves one of them. It is not set where
	// a row may come out of nothing: set operations, VALUES, HAVING without
	// GROUP BY, GROUPING SETS. Unless Grouped, aggregates remain to be excluded
	// by the catalog.
	Plain bool

	// Grouped says that no function makes one row of all rows, or of none: there
	// is a GROUP BY, or a column stands by itself in the select list, beside
	// which PostgreSQL refuses aggregates. A column with a qualifier may be an
	// aggregate itself, one of the Attributes.
	Grouped bool

	// Ordered says of a Select that it has an ORDER BY, and Grouping that beside aggregates
	// it may have several rows: a GROUP BY, a window, a set operation.
	Ordered, Grouping bool

	// Single says that FROM of a Plain query is one relation and nothing else.
	Single bool

	// Outputs are the columns of a Plain query's answer, in order; nil where the
	// text does not tell.
	Outputs []Output
}

// Output is one column of an answer.
type Output struct {
	Name string // "" where the text does not tell

	// Read and Column say that it is a column of Reads[Read-1], and that a
	// condition on it selects what the same condition on that column would
	// select in the query's own WHERE. Read is 0 where it is anything else.
	Read   int
	Column string
}

// ReadOnly reports that nothing in the text writes, locks rows or creates a
// relation. Functions may still do so; only the catalog knows.
func (s *Statement) ReadOnly() bool {
	return s.Kind == Select && len(s.Writes) == 0 && !s.Locks && !s.Into
}

// Name is a possibly schema-qualified name, as PostgreSQL folded it.
type Name struct {
	Schema string // "" when the search_path decides
	Name   string
}

// Relation is one mention of a relation.
type Relation struct {
	Name
	Alias string // "" when the name itself is the alias

	// Nested says that the mention is not at the top level of the statement: in
	// a sub-select, a WITH list or a part of a set operation.
	Nested bool

	// Equal lists the conjuncts that must hold for every row of this relation
	// that can influence the result: from WHERE of the relation's own query
	// level, from ON of inner joins, and from ON of an outer join if the relation
	// is on the side that may be filled with NULL.
	Equal []Equality

	// Columns are the columns of this relation that are mentioned by name, in
	// order of first mention. A bare name that could belong to several
	// relations is listed in each of them, so some may not exist in this one;
	// system columns such as ctid and xmin are listed like others. AllColumns is
	// set by *, t.*, whole-row use and where names cannot be told apart.
	Columns    []string
	AllColumns bool
}

// Equality is column = value, column IN (values), or column = ANY (array).
type Equality struct {
	Column string
	Values []Operand // one for =, several for IN, and for = OR =
	Array  bool      // = ANY(Values[0]): the operand is an array

	// Optional says that a row of the result does not prove that there is a row
	// which meets this: NULL may have been filled in instead.
	Optional bool
}

// Carried says that a condition on one column holds for another one as well: the
// two are compared by =, and every row of To that can influence the result meets a
// row of From that does.
type Carried struct {
	From, To Place
	Optional bool // what it carries, see Equality
}

// Place is a column of a relation of Statement.Reads.
type Place struct {
	Read   int // index of Reads
	Column string
}

// Operand is a parameter, a literal, or a column of the row for which a trigger runs.
// Exactly one of Param, Literal and Row is set.
type Operand struct {
	Param   int  // n of $n, else 0
	Literal int  // 1 + index into the scanned literals, else 0
	Negated bool // a literal behind a minus sign

	// Row says that it is Column of OLD or NEW, in the function of a trigger.
	Row    Row
	Column string

	// Cast is the type it is cast to, or the zero Name. Built-in types have no
	// schema (int4, text); an array type is its element's name followed by [].
	// A type with a modifier, such as varchar(2), makes no operand.
	Cast Name
}

// Row is a version of the row for which a trigger runs.
type Row uint8

const (
	NoRow Row = iota
	OldRow
	NewRow
)

// Op is what a Write does.
type Op uint8

const (
	OpInsert Op = iota
	OpUpsert    // INSERT … ON CONFLICT DO UPDATE
	OpUpdate
	OpDelete
	OpMerge
	OpTruncate
	OpCopy
	OpRefresh
)

// Write is one target of a data-modifying command.
type Write struct {
	Op      Op
	Target  Relation // Equal: the conjuncts on the target, for OpUpdate and OpDelete
	Cascade bool     // TRUNCATE … CASCADE

	// Columns are the columns assigned by UPDATE or ON CONFLICT DO UPDATE;
	// nil when they are not known. For OpMerge they are those of its UPDATEs.
	// Assigned are their values, of OpUpdate alone; nil where one is no plain operand.
	Columns  []string
	Assigned []*Operand

	// InsertColumns and Rows describe INSERT … VALUES: Rows[i][j] is the value
	// of InsertColumns[j] in row i, nil where it is no plain operand. InsertColumns is
	// nil when they are not named: then they are those of the table, in order. Rows is
	// nil for INSERT … SELECT, DEFAULT VALUES, and with OVERRIDING USER VALUE, which ignores some of the values.
	InsertColumns []string
	Rows          [][]*Operand

	// ConflictColumns are the columns of ON CONFLICT (…); nil for
	// ON CONSTRAINT, for expressions and for partial indexes (… WHERE …).
	ConflictColumns []string

	Returning bool // it has RETURNING
}

// Attribute is a name that is a column or, with one argument, a function.
type Attribute struct {
	Relation Name // the relation it is looked up in, or zero if that is another value
	Name     string
}

// Function is one function call.
type Function struct {
	Name
	Args int // number of arguments, those of WITHIN GROUP included; * counts as none

	// Setting is the name, in lower case, that set_config is given as a constant
	// which is part of the text; "" for all else.
	Setting string

	// Local and Lasting say that the last argument of set_config is true or false,
	// as the text has it.
	Local, Lasting bool
}

// Literal is one constant of a scanned text.
type Literal struct {
	Pos  int // byte offset of the token in the text
	Kind LiteralKind

	// Text is the value: of an Integer its digits without leading zeros, of a
	// Number what was written, of a String the decoded text, of a BitString its
	// content behind the letter b or x.
	Text string
}

// LiteralKind tells the lexical class, which decides the grammar's token.
type LiteralKind uint8

const (
	Integer   LiteralKind = iota // fits int4, as PostgreSQL's ICONST
	Number                       // any other number, FCONST
	String                       // '…', E'…', $$…$$
	BitString                    // B'…', X'…'
)

// Scanned is a text taken apart by the lexer, without parsing.
type Scanned struct {
	// Text is the normalised text: comments out, white space folded, each
	// literal replaced by a placeholder of its kind. Two texts with the same
	// normalised text have the same parse tree but for their literals.
	Text     string
	Literals []Literal
	Hints    Hints
}

// Hints are what a comment /* cachedpg: … */ asks for.
type Hints struct {
	Bypass bool
	TTL    int64  // nanoseconds; 0 when not given
	Err    string // what is wrong with a hint, "" when nothing is; the other hints count
}
