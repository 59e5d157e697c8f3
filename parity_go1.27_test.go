//go:build go1.27

package cachedpg

import (
	"database/sql/driver"
	"reflect"
)

var newerInterfaces = []reflect.Type{reflect.TypeFor[driver.RowsColumnScanner]()}
