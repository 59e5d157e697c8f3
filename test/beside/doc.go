// Package beside runs one random application through pgx and through cachedpg, each on a
// database of its own, and compares: nothing fails, waits or answers otherwise with
// cachedpg that does not with pgx. It sees the driver as an application does, from
// outside, and with the bounds that hold in production.
package beside
