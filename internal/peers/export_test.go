package peers

// What tests see that explain, for which they need the driver's API.

// ShownIn counts the locks that camps show themselves by.
var ShownIn = shown

// MayHaveHit reports that there may have been hits since it has asked first.
func (p *Peers) MayHaveHit() bool { return p.hitsUntil.Load() > 0 }

// Asks reports that it asks by itself.
func (p *Peers) Asks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done != nil
}
