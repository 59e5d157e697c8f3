package core

import (
	"database/sql/driver"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"
)

// Rows that end a write when they are closed say of their columns what pgx's do.
func TestRowsOfAWriteHaveTheOptionalInterfacesOfPgx(t *testing.T) {
	theirs := reflect.TypeFor[*stdlib.Rows]()
	for _, ours := range []reflect.Type{reflect.TypeFor[*Rows](), reflect.TypeFor[*effectRows](), reflect.TypeFor[*effectOwnRows]()} {
		for i := range theirs.NumMethod() {
			name := theirs.Method(i).Name
			if _, ok := ours.MethodByName(name); !ok && name != "HasNextResultSet" {
				t.Errorf("%v has no method %s", ours, name)
			}
		}
		if ours.Implements(reflect.TypeFor[driver.RowsNextResultSet]()) != theirs.Implements(reflect.TypeFor[driver.RowsNextResultSet]()) {
			t.Errorf("%v has result sets, or lacks them, unlike pgx's", ours)
		}
	}
}
