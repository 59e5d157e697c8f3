package backend

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/keying"
)

// pgxSession is the part of Conn that is asked of a pgx connection itself.
type pgxSession struct {
	pgxConn     *pgx.Conn
	defaultMode pgx.QueryExecMode
}

// Pgx is a connection of pgx's stdlib package, which it closes with itself.
type Pgx struct {
	*stdlib.Conn
	pgxSession
	hooks     bool
	loans     []Loan
	own       bool // the backend was the connection's own when it was asked last
	describes bool // pgx keeps descriptions, as cache_describe needs
	trace     ownTrace

	rider    *rider // nil if the connection has none
	carried  *Along // last
	prepared *Along // of which the session has the statement
}

var (
	_ Conn = (*Pgx)(nil)
	_ Wire = (*Pgx)(nil)
)

// NewPgx returns a Pgx over conn, which was dialled with config. It only reads config.
func NewPgx(conn *stdlib.Conn, config *pgx.ConnConfig) *Pgx {
	return &Pgx{Conn: conn, pgxSession: pgxSession{conn.Conn(), config.DefaultQueryExecMode}, hooks: hooked(conn),
		describes: config.DescriptionCacheCapacity > 0, trace: ownTrace{conn.Conn(), config.Tracer}}
}

// Loan is what somebody knows of a connection who has to know when it is given back.
type Loan interface {
	// GiveBack is called before the connection goes back to its pool.
	GiveBack()
	// Follows reports that statements on the connection reach him.
	Follows() bool
}

// Lend has l told when the connection is given back.
func (in *Pgx) Lend(l Loan) { in.loans = append(in.loans, l) }

// Followed reports that statements on the connection reach one of them.
func (in *Pgx) Followed() bool { return slices.ContainsFunc(in.loans, Loan.Follows) }

// Close gives a connection back to its pool, if it is of one. From then on it is somebody else's.
func (in *Pgx) Close() error {
	for _, l := range in.loans {
		l.GiveBack()
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

// Judge leaves no statement behind: another client's would be in its way behind a pooler.
func (in *Pgx) Judge(ctx context.Context, sql string) error {
	_, err := in.pgxConn.Prepare(ctx, "", sql)
	return err
}

func (in *Pgx) Hooked() bool { return in.hooks }

func (s *pgxSession) Closed() bool            { return s.pgxConn.IsClosed() }
func (s *pgxSession) TxStatus() byte          { return s.pgxConn.PgConn().TxStatus() }
func (s *pgxSession) Mode() pgx.QueryExecMode { return s.defaultMode }
func (s *pgxSession) PgxConn() *pgx.Conn      { return s.pgxConn }
func (s *pgxSession) TypeMap() *pgtype.Map    { return s.pgxConn.TypeMap() }
func (s *pgxSession) PID() uint32             { return s.pgxConn.PgConn().PID() }

func (s *pgxSession) Ended() <-chan struct{} { return s.pgxConn.PgConn().CleanupDone() }

func (s *pgxSession) Parameter(name string) string {
	return s.pgxConn.PgConn().ParameterStatus(name)
}

func (s *pgxSession) Learn(ctx context.Context) (*Session, uint32, error) {
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
	session.Temporaries = keying.NewTemporaries(objects)
	return session, pid, nil
}

// row asks a question of one row, in the transaction that is open without risk for it.
func (s *pgxSession) row(ctx context.Context, question string) (*pgconn.Result, error) {
	if s.TxStatus() == 'I' {
		// Not pgx's simple protocol, which it refuses while standard_conforming_strings is off. Nor under
		// limits of our own: those of the session may be a part of the answer.
		result := s.pgxConn.PgConn().ExecParams(ctx, question, nil, nil, nil, nil).Read()
		return result, result.Err
	}
	result, _, err := s.asideRows(ctx, question, "")
	return result, err
}

func (s *pgxSession) LoadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	return catalog.Reload(ctx, s.pgxConn, before)
}

func (s *pgxSession) NewWatch() *catalog.Watch { return catalog.NewWatch(s.pgxConn) }

func (s *pgxSession) Ask(ctx context.Context, sql string) (string, error) {
	// Not pgx's simple protocol, which it refuses while standard_conforming_strings is off.
	result := s.pgxConn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return "", result.Err
	}
	return only(result)
}
