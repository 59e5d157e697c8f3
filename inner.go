package cachedpg

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/keying"
)

// inner is what the driver needs of the connection that it wraps: the
// interfaces of database/sql, rows as they come over the wire, and the truth
// about transactions. pgxInner is the real one; tests script another.
type inner interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter

	// hooked reports that ResetSession runs code of the caller, and reset is
	// ResetSession, see hooks.go.
	hooked() bool
	reset(ctx context.Context) (sent bool, err error)

	// read runs a query and leaves its rows as PostgreSQL sent them. They are those of
	// its text, whoever else uses the backend, see pooler.go.
	read(ctx context.Context, q query) (wireRows, error)
	// judge has PostgreSQL analyse a text.
	judge(ctx context.Context, sql string) error
	// execInTx begins a transaction, executes a statement in it and then further
	// ones, the last of which asks for one text, in one round trip where it can.
	// After an error the transaction may be open or not; if it is PostgreSQL's to the question
	// it is an unansweredError.
	execInTx(ctx context.Context, sql string, args, values []driver.NamedValue, then []string) (result driver.Result, answer string, err error)
	// commit commits the open transaction. An error is never driver.ErrBadConn:
	// database/sql would repeat the statement, and it may have been committed.
	commit(ctx context.Context) error
	// closed reports that nothing more can be sent.
	closed() bool
	// txStatus is PostgreSQL's last word: 'I' idle, 'T' in a transaction, 'E'
	// in a failed one. It is out of date while rows are open.
	txStatus() byte
	learn(ctx context.Context) (s *learned, pid uint32, err error)
	// loadCatalog may take over from a catalog of before, if there is one, what has not changed since.
	loadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error)
	// text asks a question with one value as its answer, in one round trip.
	text(ctx context.Context, sql string) (string, error)
	// aside asks one in the open transaction, which an error leaves as it was, and runs
	// another whose effect on the transaction stays, see aside.go. Either may be "".
	aside(ctx context.Context, question, lasting string) (answer, kept string, err error)
	mode() pgx.QueryExecMode
	typeMap() *pgtype.Map
	backend() uint32
}

// query is a text with its values.
type query struct {
	sql    string
	args   []driver.NamedValue // with pgx's leading options
	values []driver.NamedValue // args without the options
	mode   pgx.QueryExecMode
}

// wireRows is the part of pgx.Rows that reading a result needs.
type wireRows interface {
	FieldDescriptions() []pgconn.FieldDescription
	Next() bool
	RawValues() [][]byte
	Err() error
	Close()
}

// wire is what a connection has beside, if it is one of pgx's.
type wire interface {
	pgx() *pgx.Conn
	// ended is closed when nothing is left of the connection.
	ended() <-chan struct{}
	// parameter is what PostgreSQL has reported of a setting by itself, with the last answer.
	parameter(name string) string
	newWatch() *catalog.Watch
}

var (
	_ wire = (*pgxInner)(nil)
	_ wire = (*directInner)(nil)
)

// pgxSession is the part of inner that is asked of a pgx connection itself.
type pgxSession struct {
	pgxConn     *pgx.Conn
	defaultMode pgx.QueryExecMode
}

// pgxInner is a connection of pgx's stdlib package.
type pgxInner struct {
	*stdlib.Conn
	pgxSession
	hooks     bool
	loans     []loan
	own       bool // the backend was the connection's own when it was asked last
	describes bool // pgx keeps descriptions, as cache_describe needs
	trace     ownTrace

	rider    *rider // nil if the connection has none
	carried  *along // last
	prepared *along // the session has its statement
}

var _ inner = (*pgxInner)(nil)

// newPgxInner returns the connection under conn, which was dialled with config.
func newPgxInner(conn *stdlib.Conn, config *pgx.ConnConfig) *pgxInner {
	return &pgxInner{Conn: conn, pgxSession: pgxSession{conn.Conn(), config.DefaultQueryExecMode}, hooks: hooked(conn),
		describes: config.DescriptionCacheCapacity > 0, trace: ownTrace{conn.Conn(), config.Tracer}}
}

// loan is what somebody knows of a connection who has to know when it is given back.
type loan interface {
	giveBack()
	// follows reports that statements on the connection reach him.
	follows() bool
}

// lend has l told when the connection is given back.
func (in *pgxInner) lend(l loan) { in.loans = append(in.loans, l) }

// followed reports that statements on the connection reach somebody who lends it.
func (in *pgxInner) followed() bool { return slices.ContainsFunc(in.loans, loan.follows) }

// Close gives a connection back to its pool, if it is of one. From then on it is somebody else's.
func (in *pgxInner) Close() error {
	for _, l := range in.loans {
		l.giveBack()
	}
	in.loans = nil
	return in.Conn.Close()
}

// resultFormats asks for binary where database/sql has a type of its own, as
// stdlib does, so that a value decodes to the same driver.Value.
var resultFormats = pgx.QueryResultFormatsByOID{
	pgtype.BoolOID: 1, pgtype.ByteaOID: 1, pgtype.CIDOID: 1, pgtype.DateOID: 1,
	pgtype.Float4OID: 1, pgtype.Float8OID: 1, pgtype.Int2OID: 1, pgtype.Int4OID: 1, pgtype.Int8OID: 1,
	pgtype.OIDOID: 1, pgtype.TimestampOID: 1, pgtype.TimestamptzOID: 1, pgtype.XIDOID: 1,
}

// judge leaves no statement behind: another client's would be in its way behind a pooler.
func (in *pgxInner) judge(ctx context.Context, sql string) error {
	_, err := in.pgxConn.Prepare(ctx, "", sql)
	return err
}

func (in *pgxInner) hooked() bool { return in.hooks }

func (s *pgxSession) closed() bool            { return s.pgxConn.IsClosed() }
func (s *pgxSession) txStatus() byte          { return s.pgxConn.PgConn().TxStatus() }
func (s *pgxSession) mode() pgx.QueryExecMode { return s.defaultMode }
func (s *pgxSession) pgx() *pgx.Conn          { return s.pgxConn }
func (s *pgxSession) typeMap() *pgtype.Map    { return s.pgxConn.TypeMap() }
func (s *pgxSession) backend() uint32         { return s.pgxConn.PgConn().PID() }

func (s *pgxSession) ended() <-chan struct{} { return s.pgxConn.PgConn().CleanupDone() }

func (s *pgxSession) parameter(name string) string {
	return s.pgxConn.PgConn().ParameterStatus(name)
}

func (s *pgxSession) learn(ctx context.Context) (*learned, uint32, error) {
	result, err := s.row(ctx, sessionQuery)
	if err != nil {
		return nil, 0, err
	}
	session, pid, err := readSession(s.pgxConn, result)
	if err != nil || !session.temporary {
		return session, pid, err
	}
	if result, err = s.row(ctx, temporariesQuery); err != nil {
		return nil, 0, err
	}
	var objects []string
	if err := s.pgxConn.TypeMap().Scan(result.FieldDescriptions[0].DataTypeOID, pgx.TextFormatCode, result.Rows[0][0], &objects); err != nil {
		return nil, 0, err
	}
	session.temporaries = keying.NewTemporaries(objects)
	return session, pid, nil
}

// row asks a question of one row, in the transaction that is open without risk for it.
func (s *pgxSession) row(ctx context.Context, question string) (*pgconn.Result, error) {
	if s.txStatus() == 'I' {
		// Not pgx's simple protocol, which it refuses while standard_conforming_strings is off. Nor under
		// limits of our own: those of the session may be a part of the answer.
		result := s.pgxConn.PgConn().ExecParams(ctx, question, nil, nil, nil, nil).Read()
		return result, result.Err
	}
	result, _, err := s.asideRows(ctx, question, "")
	return result, err
}

func (s *pgxSession) loadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	return catalog.Reload(ctx, s.pgxConn, before)
}

func (s *pgxSession) newWatch() *catalog.Watch { return catalog.NewWatch(s.pgxConn) }

func (s *pgxSession) text(ctx context.Context, sql string) (string, error) {
	// Not pgx's simple protocol, which it refuses while standard_conforming_strings is off.
	result := s.pgxConn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return "", result.Err
	}
	return only(result)
}

func (in *pgxInner) commit(ctx context.Context) error {
	tag, err := in.Conn.Conn().Exec(ctx, "COMMIT")
	if err == nil && tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return err
}

func (in *pgxInner) execInTx(ctx context.Context, sql string, args, values []driver.NamedValue, then []string) (driver.Result, string, error) {
	conn := in.Conn.Conn()
	switch {
	case len(args) == 0 && !strings.Contains(sql, "$"): // a parameter without a value is another error there
		return in.execPlainInTx(ctx, sql, then)
	case len(args) == 0 || len(args) != len(values) || in.defaultMode == pgx.QueryExecModeSimpleProtocol:
		return in.execStepwise(ctx, sql, args, then)
	}
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	arguments := make([]any, len(values))
	for i, v := range values {
		arguments[i] = v.Value
	}
	batch.Queue(sql, arguments...)
	for _, text := range then {
		batch.Queue(text)
	}
	results := conn.SendBatch(ctx, batch)
	_, err := results.Exec()
	if pgerr.Is(err, pgerr.NoStatement) { // BEGIN, which pgx has prepared, and the caller discarded
		_ = results.Close()
		return in.execStepwise(ctx, sql, args, then)
	}
	if err != nil {
		_ = results.Close()
		var unsent pgx.ErrPreprocessingBatch
		if errors.As(err, &unsent) {
			err = unsent.Unwrap() // as it comes without a batch
			var refused *pgconn.PgError
			if errors.As(err, &refused) { // PostgreSQL's, of preparing; pgx makes a type of its own of it
				if _, again := conn.Prepare(ctx, "", sql); again != nil {
					err = again
				} else {
					return nil, "", unansweredError{refused}
				}
			}
		}
		return nil, "", pgerr.AsStdlib(err)
	}
	tag, err := results.Exec()
	for i := 1; i < len(then) && err == nil; i++ {
		_, err = results.Exec()
	}
	var answer string
	if err == nil {
		err = toQuestion(results.QueryRow().Scan(&answer))
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	return driver.RowsAffected(tag.RowsAffected()), answer, err
}

// execPlainInTx is for a text without arguments, which pgx sends without
// preparing it: a text with literals is rarely sent twice.
func (in *pgxInner) execPlainInTx(ctx context.Context, sql string, then []string) (driver.Result, string, error) {
	pipeline := in.Conn.Conn().PgConn().StartPipeline(ctx)
	texts := append([]string{"BEGIN", sql}, then...)
	for _, text := range texts {
		pipeline.SendQueryParams(text, nil, nil, nil, nil)
	}
	err := pipeline.Sync()
	results := make([]*pgconn.Result, len(texts))
	for i := range results {
		if err != nil {
			break
		}
		var next any
		if next, err = pipeline.GetResults(); err == nil {
			results[i] = next.(*pgconn.ResultReader).Read()
			err = results[i].Err
		}
		if i == len(results)-1 {
			err = toQuestion(err)
		}
	}
	if closing := pipeline.Close(); err == nil {
		err = closing
	}
	if err != nil {
		if results[0] == nil {
			err = pgerr.AsStdlib(err)
		}
		return nil, "", err
	}
	return driver.RowsAffected(results[1].CommandTag.RowsAffected()), string(results[len(results)-1].Rows[0][0]), nil
}

// execStepwise is for what pgx cannot pipeline: arguments in an order to
// send them otherwise than by default, and the simple protocol, where one text
// for all would shift the positions that PostgreSQL's errors name.
func (in *pgxInner) execStepwise(ctx context.Context, sql string, args []driver.NamedValue, then []string) (driver.Result, string, error) {
	if _, err := in.ExecContext(ctx, "BEGIN", nil); err != nil {
		return nil, "", err
	}
	result, err := in.ExecContext(ctx, sql, args)
	if err != nil {
		return nil, "", err
	}
	for _, command := range then[:len(then)-1] {
		if _, err := in.ExecContext(ctx, command, nil); err != nil {
			return nil, "", err
		}
	}
	answer, err := in.text(ctx, then[len(then)-1])
	return result, answer, toQuestion(err)
}

// unansweredError is PostgreSQL's to the driver's own question.
type unansweredError struct{ *pgconn.PgError }

func (e unansweredError) Unwrap() error { return e.PgError }

func toQuestion(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return unansweredError{refused}
	}
	return err
}
