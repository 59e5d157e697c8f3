package cachedpg

import (
	"context"
	"strings"
	"time"
)

// limitsSQL is an expression with what ends a statement, in PostgreSQL's words.
const limitsSQL = "pg_catalog.concat_ws(' ', pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('lock_timeout')," +
	" pg_catalog.current_setting('transaction_timeout', true))"

// shortest reads it: the shortest of the limits that there are, 0 if there is none.
func shortest(limits string) (shortest time.Duration) {
	for limit := range strings.FieldsSeq(limits) {
		d, err := time.ParseDuration(strings.Replace(limit, "min", "m", 1))
		if days, ok := strings.CutSuffix(limit, "d"); ok { // of 24 hours
			d, err = time.ParseDuration(days + "h")
			d *= 24
		}
		if err == nil && d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return shortest
}

// patience is how long the connection follows another's SELECT before it runs it
// itself: a quarter of the time that the caller has, or that PostgreSQL would give it. An
// error then is PostgreSQL's own.
func (c *Conn) patience(ctx context.Context) time.Duration {
	limit := c.limit
	if c.inner == nil {
		limit = time.Duration(c.d.limit.Load())
	}
	if limit == 0 {
		limit = 4 * forever
	}
	return patientFor(ctx, limit/4)
}

// hurried is the limit of a connection whose limits have been set and are not known: it
// follows nobody. It is only a little longer than none.
const hurried = time.Nanosecond

// forever is longer than anybody waits for a SELECT.
const forever = 24 * time.Hour
