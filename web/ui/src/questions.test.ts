import { describe, expect, it } from 'vitest'
import { between, ranges, whenever } from './questions'

describe('ranges', () => {
  it('have that of an address among them', () => {
    expect(ranges('2h').slice(0, 2)).toEqual(['2h', '5m'])
    expect(ranges('custom')).toEqual(ranges('15m'))
  })
})

describe('a range without a begin or an end', () => {
  it('is from the first row on, or until now, and not of the last minutes', () => {
    expect(between('', '2026-03-01')).toEqual({ from: '1970-01-01', to: '2026-03-01' })
    expect(between('2026-03-01', '')).toEqual({ from: '2026-03-01', to: 'now' })
  })
})

describe('a question of any time', () => {
  it('is another of another table, query or set of observations, and the same of another time', () => {
    const own = whenever('flows', { q: 'port == 1', from: '-1h', to: 'now' })
    expect(whenever('flows', { q: 'port == 1', from: '-7d', to: 'now', all_observations: undefined })).toBe(own)
    for (const other of [
      whenever('transactions', { q: 'port == 1' }),
      whenever('flows', { q: 'port == 2' }),
      whenever('flows', { q: 'port == 1', all_observations: true }),
    ]) {
      expect(other).not.toBe(own)
    }
  })
})
