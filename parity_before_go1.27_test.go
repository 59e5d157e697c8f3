//go:build !go1.27

package cachedpg

import "reflect"

var newerInterfaces []reflect.Type
