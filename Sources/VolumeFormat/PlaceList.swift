/// Which names a file or directory has, as it says itself (FORMAT §13): its UUID, and a MAC for each of its names.
///
/// Parsing authenticates nothing: a reader computes the place that he expects, and looks whether it is there.
package struct PlaceList: Equatable, Sendable {
    /// The extended attribute on the lower storage. No sealed one is called so: those have 22 characters behind the prefix.
    package static let attribute = "user.lethefs.places"
    /// As many as fit in the largest attribute that Linux has, 65,536 bytes.
    package static let maximumCount = 4095
    private static let object: StaticString = "list of places"

    /// One name in one directory: the first 16 bytes of an HMAC.
    package struct Place: Equatable, Sendable {
        package static let size = 16
        private var words: UniqueID

        /// Of a whole MAC, the part that is kept.
        package init(code: [UInt8]) {
            precondition(code.count >= Self.size)
            let word = { (bytes: ArraySlice<UInt8>) in bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
            words = UniqueID(high: word(code[0..<8]), low: word(code[8..<16]))
        }

        fileprivate init(_ words: UniqueID) { self.words = words }
        fileprivate func encode(into writer: inout ByteWriter) { writer.append(words) }

        /// In a time that does not depend on where they differ.
        package static func == (left: Place, right: Place) -> Bool {
            (left.words.high ^ right.words.high) | (left.words.low ^ right.words.low) == 0
        }
    }

    /// UUID of the file or directory.
    package var object: UniqueID
    /// 1 to 4095. After a crash there may be more than the object has names.
    package var places: [Place]

    package init(object: UniqueID, places: [Place]) {
        self.object = object
        self.places = places
    }

    /// What a place is the MAC of, under the parent's key: `name` as it is stored, without a NUL.
    package static func message(object: UniqueID, name: UnsafeRawBufferPointer) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: "LPLC".utf8)
        writer.append(object)
        writer.append(contentsOf: name)
        return writer.bytes
    }

    package var encoded: [UInt8] {
        precondition((1...Self.maximumCount).contains(places.count))
        var writer = ByteWriter()
        writer.append(object)
        for place in places { place.encode(into: &writer) }
        return writer.bytes
    }

    package init(parsing bytes: UnsafeRawBufferPointer) throws(FormatError) {
        var reader = ByteReader(bytes, of: Self.object)
        object = try reader.readID()
        guard reader.remaining % Place.size == 0, (1...Self.maximumCount).contains(reader.remaining / Place.size) else {
            throw FormatError(.malformed, Self.object)
        }
        places = []
        while reader.remaining > 0 { places.append(Place(try reader.readID())) }
    }

    /// The same with one place more, if it is not there yet.
    package func adding(_ place: Place) -> PlaceList {
        places.contains(place) ? self : PlaceList(object: object, places: places + [place])
    }

    package func removing(_ place: Place) -> PlaceList {
        PlaceList(object: object, places: places.filter { $0 != place })
    }
}
