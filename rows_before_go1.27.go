//go:build !go1.27

package cachedpg

type currentRow struct{}
