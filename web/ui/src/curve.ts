/** Lines of the service map. */

import { NODE, type Place } from './layout'

/** Room for the arrow before a node, px. */
export const ARROW = 9
/** How far lines go beyond the right side of what they join, px. */
export const BULGE = 42

/** The curve from a client to its server, up to the arrow. Opposite links run side by side. */
export function curve(client: Place, server: Place): string {
  const middle = (place: Place) => place.y + NODE.height / 2
  const right = (place: Place) => place.x + NODE.width
  const path = (x1: number, y1: number, c1: number, c2: number, x2: number, y2: number) =>
    `M${x1},${y1} C${c1},${y1} ${c2},${y2} ${x2},${y2}`
  if (client.x === server.x && client.y === server.y) {
    const [x, y] = [right(client), middle(client)]
    return path(x, y - 8, x + BULGE, x + BULGE, x + ARROW, y + 8)
  }
  if (server.x >= right(client)) {
    const reach = Math.max(36, (server.x - right(client)) / 2)
    return path(right(client), middle(client) - 4, right(client) + reach, server.x - reach, server.x - ARROW, middle(server) - 4)
  }
  if (right(server) <= client.x) {
    const reach = Math.max(36, (client.x - right(server)) / 2)
    return path(client.x, middle(client) + 4, client.x - reach, right(server) + reach, right(server) + ARROW, middle(server) + 4)
  }
  // One above the other: around the right side.
  const bulge = Math.min(BULGE, 20 + Math.abs(client.y - server.y) / 6)
  const [out, offset] = [Math.max(right(client), right(server)) + bulge, client.y < server.y ? -4 : 4]
  return path(right(client), middle(client) + offset, out, out, right(server) + ARROW, middle(server) + offset)
}
