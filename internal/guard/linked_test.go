package guard_test

// The driver registers in package inside what the tests ask it for.
import _ "github.com/cachedpg/cachedpg"
