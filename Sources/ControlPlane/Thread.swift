import Storage

/// A plain thread.
package typealias Thread = DetachedThread
