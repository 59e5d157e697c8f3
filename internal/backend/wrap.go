package backend

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

func (in *Pgx) Commit(ctx context.Context) error {
	tag, err := in.Conn.Conn().Exec(ctx, "COMMIT")
	if err == nil && tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return err
}

func (in *Pgx) ExecInTx(ctx context.Context, sql string, args, values []driver.NamedValue, then []string) (driver.Result, string, error) {
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
					return nil, "", UnansweredError{refused}
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
func (in *Pgx) execPlainInTx(ctx context.Context, sql string, then []string) (driver.Result, string, error) {
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
func (in *Pgx) execStepwise(ctx context.Context, sql string, args []driver.NamedValue, then []string) (driver.Result, string, error) {
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
	answer, err := in.Ask(ctx, then[len(then)-1])
	return result, answer, toQuestion(err)
}
