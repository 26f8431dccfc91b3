import { describe, expect, it } from 'vitest'
import { instant, nanos } from './time'

describe('times', () => {
  it('keep their nanoseconds', () => {
    const time = '2026-03-01T00:00:00.019333372Z'
    expect(instant(nanos(time))).toBe(time)
    expect(instant(nanos(time) + 1n)).toBe('2026-03-01T00:00:00.019333373Z')
  })

  it('may be written shorter', () => {
    expect(instant(nanos('2026-03-01T00:00:00Z'))).toBe('2026-03-01T00:00:00.000000000Z')
    expect(nanos('2026-03-01T00:00:00.5Z') - nanos('2026-03-01T00:00:00Z')).toBe(500_000_000n)
  })
})
