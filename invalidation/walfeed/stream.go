package walfeed

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// Silence is how long PostgreSQL may say nothing before its connection counts
	// as lost. It is asked for an answer several times in that time.
	Silence = 5 * time.Second

	statusEvery = time.Second
)

// Stream is a replication connection with a slot of its own. It is used by one
// goroutine at a time.
type Stream struct {
	conn     *pgconn.PgConn
	decoder  Decoder
	received uint64    // LSN
	heard    time.Time // when anything came last
	told     time.Time // when the last status was sent
}

// Connect opens a connection for replication to the database of config, which
// it does not change.
func Connect(ctx context.Context, config *pgconn.Config) (*Stream, error) {
	config = config.Copy()
	params := make(map[string]string, len(config.RuntimeParams)+4)
	for k, v := range config.RuntimeParams {
		params[k] = v
	}
	params["replication"] = "database"
	params["client_encoding"] = "UTF8"
	params["statement_timeout"] = "0"
	// A process that is stopped keeps its connection. PostgreSQL ends it then.
	params["wal_sender_timeout"] = fmt.Sprintf("%dms", Silence.Milliseconds())
	config.RuntimeParams = params
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, refused(err)
	}
	return &Stream{conn: conn}, nil
}

// Close ends the connection, and with it the slot and the locks that it holds:
// before it returns, if PostgreSQL answers within a second.
func (s *Stream) Close() error {
	s.conn.Frontend().Send(&pgproto3.Terminate{})
	conn := s.conn.Conn()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if s.conn.Frontend().Flush() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	return s.conn.Close(ctx)
}

// PID is that of the backend.
func (s *Stream) PID() uint32 { return s.conn.PID() }

// Text runs an SQL statement and returns the first value of its answer. It
// cannot be used after Start.
func (s *Stream) Text(ctx context.Context, sql string) (string, error) {
	row, err := s.command(ctx, sql)
	if err != nil || len(row) == 0 {
		return "", err
	}
	return string(row[0]), nil
}

// command returns the first row of a command's answer.
func (s *Stream) command(ctx context.Context, command string) ([][]byte, error) {
	results, err := s.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, refused(err)
	}
	for _, r := range results {
		if len(r.Rows) > 0 {
			return r.Rows[0], nil
		}
	}
	return nil, nil
}

// CreateSlot makes a temporary slot. From its return on every commit is decoded
// whose record is written; it waits for transactions that are under way.
func (s *Stream) CreateSlot(ctx context.Context) (name string, err error) {
	var b [8]byte
	rand.Read(b[:])
	name = fmt.Sprintf("cachedpg_%x", b)
	_, err = s.command(ctx, "CREATE_REPLICATION_SLOT "+name+" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT")
	return name, err
}

// Start begins to stream from the slot.
func (s *Stream) Start(ctx context.Context, slot string) error {
	s.conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot +
		" LOGICAL 0/0 (proto_version '1', publication_names '\"" + Publication + "\"', messages 'true')"})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		message, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			return refused(err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyBothResponse:
			s.heard, s.told = time.Now(), time.Now()
			return nil
		case *pgproto3.ErrorResponse:
			return refused(pgconn.ErrorResponseToPgError(m))
		}
	}
}

// Receive returns the next transaction that has committed, or nil when nothing
// has come for a while. After an error the stream is over.
func (s *Stream) Receive(ctx context.Context) (*Transaction, error) {
	for {
		now := time.Now()
		if now.Sub(s.told) >= statusEvery {
			if err := s.status(now); err != nil {
				return nil, err
			}
		}
		until, cancel := context.WithDeadline(ctx, s.told.Add(statusEvery))
		message, err := s.conn.ReceiveMessage(until)
		cancel()
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case !pgconn.Timeout(err):
				return nil, refused(err)
			case time.Since(s.heard) > Silence:
				return nil, fmt.Errorf("cachedpg: PostgreSQL has said nothing for %v", Silence)
			}
			return nil, nil
		}
		s.heard = time.Now()
		switch m := message.(type) {
		case *pgproto3.CopyData:
			tx, err := s.data(m.Data)
			if tx != nil || err != nil {
				return tx, err
			}
		case *pgproto3.ErrorResponse:
			return nil, refused(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return nil, io.ErrUnexpectedEOF
		}
	}
}

// data reads one message of the replication protocol.
func (s *Stream) data(b []byte) (*Transaction, error) {
	switch {
	case len(b) == 18 && b[0] == 'k':
		s.received = max(s.received, binary.BigEndian.Uint64(b[1:]))
		if b[17] != 0 {
			s.told = time.Time{} // wants an answer at once
		}
		return nil, nil
	case len(b) >= 25 && b[0] == 'w':
		s.received = max(s.received, binary.BigEndian.Uint64(b[1:]))
		tx, err := s.decoder.Decode(b[25:])
		if tx != nil {
			s.received = max(s.received, tx.LSN)
		}
		return tx, err
	}
	return nil, errMessage
}

// status acknowledges what was received, and asks for an answer. To have been
// received is enough: whoever loses it starts cold.
func (s *Stream) status(now time.Time) error {
	b := make([]byte, 0, 34)
	b = append(b, 'r')
	for range 3 { // written, flushed, applied
		b = binary.BigEndian.AppendUint64(b, s.received)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(now.Sub(epoch).Microseconds()))
	b = append(b, 1)
	s.told = now
	s.conn.Frontend().Send(&pgproto3.CopyData{Data: b})
	return s.conn.Frontend().Flush()
}

// KeepAlive tells PostgreSQL that somebody is there, where Receive is not called
// for a second or more.
func (s *Stream) KeepAlive() error { return s.status(time.Now()) }

// refused adds what helps to errors that have a remedy.
func refused(err error) error {
	var pg *pgconn.PgError
	var wrong net.Error
	switch {
	case errors.As(err, &pg):
	case errors.As(err, &wrong):
		return fmt.Errorf("cachedpg: cache_external=wal: the connection for replication: %w", err)
	default:
		return err
	}
	remedy := ""
	switch {
	case pg.Code == "42501":
		remedy = "ALTER ROLE … REPLICATION for the role that connects"
	case pg.Code == "53400" || strings.Contains(pg.Message, "max_replication_slots"):
		remedy = "raise max_replication_slots: each process needs a slot, or with a Redis one of all"
	case pg.Code == "53300":
		remedy = "raise max_wal_senders"
	case pg.Code == "55000" && strings.Contains(pg.Message, "wal_level"):
		remedy = "ALTER SYSTEM SET wal_level = logical, and restart PostgreSQL"
	case pg.Code == "28000":
		remedy = "let the role connect for replication, in pg_hba.conf"
	case pg.Code == "08P01":
		remedy = "connect to PostgreSQL itself: a pooler does not replicate"
	default:
		return err
	}
	return &ConfigError{Problem: pg.Message, Remedy: remedy}
}
