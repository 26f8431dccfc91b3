/** Times to the nanosecond, which are beyond `Date`. */

const SECOND = 1_000_000_000n

/** An RFC 3339 time, UTC, in ns. */
export function nanos(time: string): bigint {
  const rest = /\.(\d{1,9})/.exec(time)?.[1] ?? ''
  return BigInt(Date.parse(`${time.slice(0, 19)}Z`)) * 1_000_000n + BigInt(rest.padEnd(9, '0'))
}

/** The RFC 3339 time of so many ns; nine digits stand behind the point, as the appliance writes them. */
export function instant(ns: bigint): string {
  const seconds = new Date(Number(ns / SECOND) * 1000).toISOString().slice(0, 19)
  return `${seconds}.${String(ns % SECOND).padStart(9, '0')}Z`
}
