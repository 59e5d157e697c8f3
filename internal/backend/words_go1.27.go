//go:build go1.27

package backend

import "database/sql/driver"

// ScanContext is what Rows are scanned with since Go 1.27.
type ScanContext = driver.ScanContext
