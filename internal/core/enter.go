package core

// enter starts every call: what happened past the driver since the last one is over.
func (c *Conn) enter() error {
	if c.isClosed {
		return errClosed
	}
	if c.placement.parked {
		c.d.places.unpark(c)
	}
	if c.idle.Load() != inUse {
		c.d.idlers.awake(c)
	}
	c.lent.end()
	c.disown()
	c.retract()
	return nil
}

// disown gives up what was not refilled: the next reads will fill.
func (c *Conn) disown() {
	if c.owed != nil {
		c.d.stats.refillSkipped.Add(uint64(len(c.owed.due)))
		c.owed = nil
	}
}
