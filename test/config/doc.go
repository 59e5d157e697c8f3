// Package config tests the keys of a DSN and the fields of cachedpg.Config, and the policies of tables.
package config
