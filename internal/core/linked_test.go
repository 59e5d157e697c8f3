package core_test

// The tests of the core go through the face for database/sql, which registers itself in package inside.
import _ "github.com/cachedpg/cachedpg"
