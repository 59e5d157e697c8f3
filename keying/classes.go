package keying

// class is a family of types between which a value has one canonical form:
// two forms are equal exactly when PostgreSQL's = says so.
type class uint8

const (
	noClass   class = iota
	intClass        // int2, int4, int8: the value as int64
	oidClass        // oid: the value, never negative
	textClass       // text, varchar, under a deterministic collation: the bytes
	uuidClass       // the 16 bytes
	boolClass
	dateClass        // the days since 1970
	timestampClass   // the microseconds since 1970, whatever the zone
	timestamptzClass // the microseconds since 1970 in UTC
	bpcharClass      // char(n), under a deterministic collation: the bytes without blanks at the end
	numericClass     // the digits that count, and where the point is
)

// The OIDs of pg_type that keying knows. They are fixed in PostgreSQL's source.
const (
	oidBool        = 16
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidFloat4      = 700
	oidFloat8      = 701
	oidUnknown     = 705
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidTimetz      = 1266
	oidNumeric     = 1700
	oidCstring     = 2275
	oidUUID        = 2950
)

// classOf returns the class of a type, resolved through domains. A type that
// is missing here has no canonical form, or none that is worth its code: floats
// have -0 = 0, an interval of a month is equal to one of 30 days.
func classOf(typ uint32) class {
	switch typ {
	case oidInt2, oidInt4, oidInt8:
		return intClass
	case oidOID:
		return oidClass
	case oidText, oidVarchar:
		return textClass
	case oidBpchar:
		return bpcharClass
	case oidUUID:
		return uuidClass
	case oidBool:
		return boolClass
	case oidDate:
		return dateClass
	case oidTimestamp:
		return timestampClass
	case oidTimestamptz:
		return timestamptzClass
	case oidNumeric:
		return numericClass
	}
	return noClass
}
