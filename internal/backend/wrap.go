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

func (in *Pgx) ExecInTx(ctx context.Context, q Query, row RowFunc, then []string) (driver.Result, string, error) {
	conn := in.Conn.Conn()
	switch {
	case len(q.Args) == 0 && !strings.Contains(q.SQL, "$"): // a parameter without a value is another error there
		return in.execPlainInTx(ctx, q.SQL, row, then)
	case len(q.Args) == 0 || len(q.Args) != len(q.Values) || in.defaultMode == pgx.QueryExecModeSimpleProtocol:
		return in.execStepwise(ctx, q, row, then)
	}
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	batch.Queue(q.SQL, appendValues(make([]any, 0, len(q.Values)), q.Values)...)
	for _, text := range then {
		batch.Queue(text)
	}
	results := conn.SendBatch(ctx, batch)
	_, err := results.Exec()
	if pgerr.Is(err, pgerr.NoStatement) { // BEGIN, which pgx has prepared, and the caller discarded
		_ = results.Close()
		return in.execStepwise(ctx, q, row, then)
	}
	if err != nil {
		_ = results.Close()
		var unsent pgx.ErrPreprocessingBatch
		if errors.As(err, &unsent) {
			err = unsent.Unwrap() // as it comes without a batch
			var refused *pgconn.PgError
			if errors.As(err, &refused) { // PostgreSQL's, of preparing; pgx makes a type of its own of it
				if _, again := conn.Prepare(ctx, "", q.SQL); again != nil {
					err = again
				} else {
					return nil, "", UnansweredError{refused}
				}
			}
		}
		return nil, "", pgerr.AsStdlib(err)
	}
	tag, err := execIn(results, row)
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

// execIn executes the next statement of a batch.
func execIn(results pgx.BatchResults, row RowFunc) (pgconn.CommandTag, error) {
	if row == nil {
		return results.Exec()
	}
	rows, err := results.Query()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	for rows.Next() {
		row(rows.FieldDescriptions(), rows.RawValues())
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// execPlainInTx is for a text without arguments, which pgx sends without
// preparing it: a text with literals is rarely sent twice.
func (in *Pgx) execPlainInTx(ctx context.Context, sql string, row RowFunc, then []string) (driver.Result, string, error) {
	pipeline := in.Conn.Conn().PgConn().StartPipeline(ctx)
	texts := append([]string{"BEGIN", sql}, then...)
	for _, text := range texts {
		pipeline.SendQueryParams(text, nil, nil, nil, nil)
	}
	err := pipeline.Sync()
	var tag pgconn.CommandTag // of the statement
	var answer string
	begun := false
	for i := range texts {
		if err != nil {
			break
		}
		var next any
		if next, err = pipeline.GetResults(); err == nil {
			switch result := next.(*pgconn.ResultReader); i {
			case 1:
				tag, err = drain(result, row)
			case len(texts) - 1:
				_, err = drain(result, func(_ []pgconn.FieldDescription, values [][]byte) { answer = string(values[0]) })
			default:
				_, err = result.Close()
			}
			begun = true
		}
		if i == len(texts)-1 {
			err = toQuestion(err)
		}
	}
	if closing := pipeline.Close(); err == nil {
		err = closing
	}
	if err != nil {
		if !begun {
			err = pgerr.AsStdlib(err)
		}
		return nil, "", err
	}
	return driver.RowsAffected(tag.RowsAffected()), answer, nil
}

// execStepwise is for what pgx cannot pipeline: arguments in an order to
// send them otherwise than by default, and the simple protocol, where one text
// for all would shift the positions that PostgreSQL's errors name.
func (in *Pgx) execStepwise(ctx context.Context, q Query, row RowFunc, then []string) (result driver.Result, answer string, err error) {
	if _, err := in.ExecContext(ctx, "BEGIN", nil); err != nil {
		return nil, "", err
	}
	if row == nil {
		result, err = in.ExecContext(ctx, q.SQL, q.Args)
	} else {
		result, err = in.ExecReturning(ctx, q, row)
	}
	if err != nil {
		return nil, "", err
	}
	for _, command := range then[:len(then)-1] {
		if _, err := in.ExecContext(ctx, command, nil); err != nil {
			return nil, "", err
		}
	}
	answer, err = in.Ask(ctx, then[len(then)-1])
	return result, answer, toQuestion(err)
}
