package guard

import "fmt"

// Lock is a shared advisory lock, by the two keys that PostgreSQL knows it by.
type Lock struct{ Class, Object int }

// Call is a question that calls one of PostgreSQL's functions for advisory locks with it.
func (p Lock) Call(function string) string {
	return fmt.Sprintf("SELECT pg_catalog.%s(%d, %d)::pg_catalog.text", function, p.Class, p.Object)
}
