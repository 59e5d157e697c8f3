package backend

import (
	"reflect"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// hooked reports that taking the connection again runs code of the caller. pgx
// does not tell; where its fields are not as they were, the answer is yes.
func hooked(conn *stdlib.Conn) bool {
	fields := reflect.ValueOf(conn).Elem()
	reset, ping := fields.FieldByName("resetSessionFunc"), fields.FieldByName("shouldPing")
	if reset.Kind() != reflect.Func || ping.Kind() != reflect.Func {
		return true
	}
	return !ping.IsNil() || !reset.IsNil() && !DefinedIn(reset, reflect.TypeFor[stdlib.Conn]().PkgPath())
}

// DefinedIn reports that a function is written in the package. That of a closure
// which the compiler has inlined elsewhere is not told.
func DefinedIn(function reflect.Value, pkg string) bool {
	f := runtime.FuncForPC(function.Pointer())
	return f != nil && strings.HasPrefix(f.Name(), pkg+".")
}
