import { describe, expect, it } from 'vitest'
import { ranges, whenever } from './questions'

describe('ranges', () => {
  it('have that of an address among them', () => {
    expect(ranges('2h').slice(0, 2)).toEqual(['2h', '5m'])
    expect(ranges('custom')).toEqual(ranges('15m'))
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
