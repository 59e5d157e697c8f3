//lint:file-ignore SA1019 what is deprecated must not be implemented either

package cachedpg

import (
	"database/sql/driver"
	"io"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"
)

// optional are the interfaces that database/sql looks for.
var optional = []reflect.Type{
	reflect.TypeFor[driver.ConnBeginTx](), reflect.TypeFor[driver.ConnPrepareContext](), reflect.TypeFor[driver.ExecerContext](),
	reflect.TypeFor[driver.Execer](), reflect.TypeFor[driver.NamedValueChecker](), reflect.TypeFor[driver.Pinger](),
	reflect.TypeFor[driver.QueryerContext](), reflect.TypeFor[driver.Queryer](), reflect.TypeFor[driver.SessionResetter](),
	reflect.TypeFor[driver.Validator](), reflect.TypeFor[driver.ColumnConverter](), reflect.TypeFor[driver.StmtExecContext](),
	reflect.TypeFor[driver.StmtQueryContext](), reflect.TypeFor[driver.RowsColumnTypeDatabaseTypeName](),
	reflect.TypeFor[driver.RowsColumnTypeLength](), reflect.TypeFor[driver.RowsColumnTypeNullable](),
	reflect.TypeFor[driver.RowsColumnTypePrecisionScale](), reflect.TypeFor[driver.RowsColumnTypeScanType](),
	reflect.TypeFor[driver.RowsNextResultSet](), reflect.TypeFor[driver.DriverContext](),
}

func TestEveryTypeHasExactlyTheOptionalInterfacesOfPgx(t *testing.T) {
	for _, pair := range []struct{ ours, theirs reflect.Type }{
		{reflect.TypeFor[*Conn](), reflect.TypeFor[*stdlib.Conn]()},
		{reflect.TypeFor[*Stmt](), reflect.TypeFor[*stdlib.Stmt]()},
		{reflect.TypeFor[*Rows](), reflect.TypeFor[*stdlib.Rows]()},
		{reflect.TypeFor[*Driver](), reflect.TypeFor[*stdlib.Driver]()},
	} {
		for _, i := range append(optional, newerInterfaces...) {
			got, want := pair.ours.Implements(i), pair.theirs.Implements(i)
			if i == reflect.TypeFor[driver.Validator]() && pair.ours == reflect.TypeFor[*Conn]() {
				want = true // by which database/sql says that it has no use for it, see internal/core/places.go
			}
			if got != want {
				t.Errorf("%v implements %v: %v, pgx's %v", pair.ours, i, got, want)
			}
		}
	}
	// One more than pgx: closing the DB gives the cache's memory back.
	if !reflect.TypeFor[*connector]().Implements(reflect.TypeFor[io.Closer]()) {
		t.Error("the connector is not an io.Closer")
	}
}

// A setting that is not passed on would be one without effect.
func TestTheConfigIsPassedOnWhole(t *testing.T) {
	var given Config
	v := reflect.ValueOf(&given).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Int64:
			f.SetInt(int64(i + 1))
		}
	}
	given.Policies = []Policy{{Relation: "r", Strategy: "s", TTL: 1}}
	within := reflect.ValueOf(given.core())
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		f := within.FieldByName(name)
		switch {
		case name == "OnDeadLetter": // which the connector hands over
		case !f.IsValid() || f.IsZero():
			t.Errorf("%s is not passed on", name)
		case f.Kind() != reflect.Slice && !reflect.DeepEqual(f.Interface(), v.Field(i).Interface()):
			t.Errorf("%s is passed on as %v", name, f)
		}
	}
	if back := configOf(given.core()); !reflect.DeepEqual(back, given) {
		t.Errorf("parsed as %+v, want %+v", back, given)
	}
}
