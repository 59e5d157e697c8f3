// Package versions tests what not every supported version of PostgreSQL has.
package versions
